import type { Namespace } from '@decant/core';

/** Where the content of a file of a build context lies. */
export interface ContextFileLocation {
  readonly objectKey: string;
  /** Bytes of the whole object. */
  readonly objectBytes: number;
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface ContextObject {
  readonly key: string;
  readonly sizeBytes: number;
  readonly files: Iterable<{ readonly digest: string; readonly offset: number; readonly sizeBytes: number }>;
}

/** Files of build contexts by the SHA-256 of their content, each namespace's for itself, and the objects that hold them. */
export interface ContextFileStore {
  /** Those of the files that are there. What they lie in counts as used now. */
  locate(namespace: Namespace, digests: readonly string[]): Promise<ReadonlyMap<string, ContextFileLocation>>;
  /** Makes an object and its files known; files that are known already stay where they are. It counts as used now. */
  add(namespace: Namespace, object: ContextObject): Promise<void>;
  /** Forgets up to 100 objects that were last used so long ago, and their files; returns the keys to delete. */
  expire(olderThanMs: number): Promise<readonly string[]>;
}
