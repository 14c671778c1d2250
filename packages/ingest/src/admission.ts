import type { ChunkCodec, HashProvider } from '@decant/cas';
import type { ChunkId, ChunkIndex, ChunkLocation, ImageId, ImageRecord, Namespace, ObjectStore } from '@decant/core';

/** A pack at rest that an admission wrote, and what lies in it. */
export interface WrittenPack {
  readonly key: string;
  readonly sizeBytes: number;
  readonly chunks: readonly (Omit<ChunkLocation, 'packKey'> & { readonly id: ChunkId })[];
}

/** What an admission found and wrote. Nothing of it is visible until the caller has committed it. */
export interface Admission {
  readonly id: ImageId;
  readonly record: Omit<ImageRecord, 'createdAt'>;
  /** Hex digest of the configuration, which lies at its key; null when there is none. */
  readonly configDigest: string | null;
  readonly packs: readonly WrittenPack[];
  readonly counts: {
    /** Distinct chunks; 0 for an image of one object. */
    readonly chunksTotal: number;
    readonly chunksNew: number;
    /** Plain bytes of the new chunks, or of the one object when it was new. */
    readonly newBytes: number;
    /** The same as stored at rest. */
    readonly storedBytes: number;
  };
}

/** What admissions work with. */
export interface IngestContext {
  readonly store: ObjectStore;
  readonly hash: HashProvider;
  readonly codec: ChunkCodec;
  readonly namespace: Namespace;
  /** What the namespace can reach already. */
  readonly index: ChunkIndex;
  /** Staging prefix of the build, without a slash at its end. */
  readonly stagingPrefix: string;
  /** Private directory for temporary files. */
  readonly scratchDirectory: string;
  readonly onProgress?: ((bytes: number, totalBytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}
