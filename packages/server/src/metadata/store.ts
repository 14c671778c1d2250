import type {
  BuildId,
  ChunkId,
  ChunkIndex,
  ChunkLocation,
  ClaimedJob,
  ImageId,
  ImageName,
  ImageRecord,
  JobQueue,
  Namespace,
  RootfsFormat,
  Template,
} from '@decant/core';

import type { ContextFileStore } from './context-file-store.ts';
import type { ImageBuildStore } from './image-build-store.ts';
import type { SnapshotStore } from './snapshot-store.ts';

export interface KeyRow {
  readonly id: string;
  readonly namespace: Namespace;
  readonly createdAt: number;
  readonly revokedAt: number | null;
}

export interface RegistryCredentialRow {
  readonly id: string;
  readonly namespace: Namespace;
  readonly secretHash: string;
  readonly expiresAt: number;
}

export interface NameRow extends ImageName {
  readonly imageId: ImageId;
  /** Configuration this version of the name runs with, as hex; null when there is none. */
  readonly configDigest: string | null;
  readonly diskBytes: number;
  readonly updatedAt: number;
}

export interface ImageRow {
  readonly record: ImageRecord;
  readonly configDigest: string | null;
}

export type BuildStatus = 'prepared' | 'ingesting' | 'completed' | 'failed';

export interface BuildProblem {
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
}

export interface BuildRow extends ImageName {
  readonly id: BuildId;
  readonly namespace: Namespace;
  readonly snapshotId: string;
  readonly format: RootfsFormat;
  readonly status: BuildStatus;
  /** The prepare request as it came. */
  readonly request: unknown;
  /** The complete request, once there was one. */
  readonly completion: unknown;
  readonly template: Template | null;
  readonly problem: BuildProblem | null;
  readonly progressBytes: number;
  readonly progressTotal: number;
}

export interface AdmittedPack {
  readonly key: string;
  readonly sizeBytes: number;
  readonly chunks: Iterable<Omit<ChunkLocation, 'packKey'> & { readonly id: ChunkId }>;
}

/** What one admission makes visible, all of it or nothing. */
export interface AdmissionCommit {
  readonly build: BuildRow;
  readonly image: ImageRow;
  readonly packs: readonly AdmittedPack[];
  /** Config digest and disk size for the version of the name. */
  readonly configDigest: string | null;
  readonly diskBytes: number;
  readonly template: Template;
}

/** A registry credential to be; `keyId` is null when an operator asked. */
export interface NewRegistryCredential extends Pick<RegistryCredentialRow, 'id' | 'namespace' | 'secretHash'> {
  readonly keyId: string | null;
  readonly lifeMs: number;
}

export interface KeyStore {
  ensureNamespace(namespace: Namespace): Promise<void>;
  /** All namespaces, by name. */
  namespaces(): Promise<readonly Namespace[]>;
  create(id: string, namespace: Namespace, secretHash: string): Promise<KeyRow>;
  /** The key and the hash of its secret, revoked or not. */
  find(id: string): Promise<(KeyRow & { readonly secretHash: string }) | undefined>;
  list(): Promise<readonly KeyRow[]>;
  /** Returns undefined when there is no such key; revoking twice keeps the first time. */
  revoke(id: string): Promise<KeyRow | undefined>;
  /**
   * Remembers credentials for the registry that end after `lifeMs`, or with the key they were made for. Those that
   * have ended go.
   */
  createRegistryCredential(credential: NewRegistryCredential): Promise<RegistryCredentialRow>;
  /** Undefined as well when they have ended or their key was revoked. */
  findRegistryCredential(id: string): Promise<RegistryCredentialRow | undefined>;
}

export interface ImageStore {
  find(namespace: Namespace, id: ImageId): Promise<ImageRow | undefined>;
  chunkIndex(namespace: Namespace): ChunkIndex;
  /** Ids of the images made of chunks, in byte order after `after`, at most `limit`. */
  listStreaming(
    namespace: Namespace,
    options: { limit: number; after?: ImageId | undefined },
  ): Promise<readonly ImageId[]>;
  /** Forgets where chunks lie, unless they lie elsewhere by now, and remembers that they are damaged. */
  markDamaged(namespace: Namespace, chunks: ReadonlyMap<ChunkId, ChunkLocation>): Promise<void>;
  /** Whether a chunk is damaged that no admission has replaced yet. */
  hasDamage(namespace: Namespace): Promise<boolean>;
  /** Up to 1,000 chunks that were damaged and that an admission has replaced since. */
  replacedChunks(namespace: Namespace): Promise<readonly ChunkId[]>;
  /** Forgets that chunks were damaged: all images know where they lie now. */
  settleReplaced(namespace: Namespace, ids: readonly ChunkId[]): Promise<void>;
}

export interface NameStore {
  find(namespace: Namespace, name: ImageName): Promise<NameRow | undefined>;
  /** Names after `after` in byte order of name and tag, at most `limit`. */
  list(
    namespace: Namespace,
    options: { limit: number; after?: ImageName | undefined },
  ): Promise<readonly (NameRow & { image: ImageRow })[]>;
  /** Points a name at an image of this namespace. @throws NOT_FOUND when there is no such image. */
  set(namespace: Namespace, row: Omit<NameRow, 'updatedAt'>): Promise<NameRow>;
  /** Removes the name only. Returns false when there was none. */
  remove(namespace: Namespace, name: ImageName): Promise<boolean>;
  /** What the name pointed at, the latest 1,000 versions, newest first. */
  history(
    namespace: Namespace,
    name: ImageName,
  ): Promise<readonly { version: number; imageId: ImageId | null; createdAt: number }[]>;
}

export type NewBuild = Pick<BuildRow, 'id' | 'namespace' | 'snapshotId' | 'name' | 'tag' | 'format' | 'request'>;

/** Builds of the platform plane: uploads from being prepared until they are admitted or refused. */
export interface AdmissionStore {
  create(build: NewBuild): Promise<BuildRow>;
  find(namespace: Namespace, id: string): Promise<BuildRow | undefined>;
  /** Moves a prepared build to ingesting and enqueues its job. Returns the build as it now is: unchanged when it had moved on already. */
  beginIngest(namespace: Namespace, id: BuildId, completion: unknown): Promise<BuildRow>;
  setProgress(id: BuildId, bytes: number, totalBytes: number): Promise<void>;
  /** Makes an admission visible. @throws INGEST_STATE when the job's claim or the build has moved on. */
  commit(job: ClaimedJob, commit: AdmissionCommit): Promise<void>;
  /** Marks a build failed. @throws INGEST_STATE as above. */
  fail(job: ClaimedJob, build: BuildRow, problem: BuildProblem): Promise<void>;
  /**
   * Fails builds whose upload was not completed for `olderThanMs`. Then gives up to 100 of the builds that ended that
   * long ago and whose staged objects have not been removed: by now no signed URL can write to them any more.
   */
  expire(olderThanMs: number, problem: BuildProblem): Promise<readonly BuildRow[]>;
  /** Remembers that nothing is staged for a build any more. */
  stagingRemoved(id: BuildId): Promise<void>;
}

/**
 * Everything the services remember besides objects. Each call is one transaction; times come from the
 * store's own clock. Names, builds, images and chunks of one namespace are never visible to another.
 */
export interface MetadataStore extends AsyncDisposable {
  readonly keys: KeyStore;
  readonly jobs: JobQueue;
  readonly images: ImageStore;
  readonly names: NameStore;
  readonly builds: AdmissionStore;
  /** Builds of the image-builder. */
  readonly imageBuilds: ImageBuildStore;
  readonly snapshots: SnapshotStore;
  /** Files of build contexts that were sent one by one. */
  readonly contextFiles: ContextFileStore;
  /** The value of a setting; when absent, the one `make` gives is stored first. Racing callers get the same value. */
  setting(name: string, make: () => string): Promise<string>;
}

export const INGEST_JOB = 'ingest';
