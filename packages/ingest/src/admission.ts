import type { HashProvider, ThreadedCodec } from '@decant/cas';
import {
  parseImageId,
  type ChunkId,
  type ChunkIndex,
  type ChunkLocation,
  type ImageId,
  type ImageRecord,
  type Namespace,
  type ObjectStore,
} from '@decant/core';

/** A pack at rest that an admission wrote, and what lies in it. */
export interface WrittenPack {
  readonly key: string;
  readonly sizeBytes: number;
  /** In order of their offsets; may be walked more than once. */
  readonly chunks: Iterable<Omit<ChunkLocation, 'packKey'> & { readonly id: ChunkId }>;
}

/** An image that the namespace has already. */
export interface AdmittedImage {
  readonly record: Omit<ImageRecord, 'createdAt'>;
  readonly configDigest: string | null;
}

/** What an admission found and wrote. Nothing of it is visible until the caller has committed it. */
export interface Admission {
  readonly id: ImageId;
  readonly record: Omit<ImageRecord, 'createdAt'>;
  /** Hex digest of the configuration, which lies at its key; null when there is none. */
  readonly configDigest: string | null;
  /** The namespace had the image before: nothing was written. */
  readonly repeated: boolean;
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

/** The admission of an image that the namespace has already: its name is all that changes. */
export function repeatedAdmission({ record, configDigest }: AdmittedImage): Admission {
  return {
    id: parseImageId(record.id),
    record,
    configDigest,
    repeated: true,
    packs: [],
    counts: { chunksTotal: record.chunks ?? 0, chunksNew: 0, newBytes: 0, storedBytes: 0 },
  };
}

/** What admissions work with. */
export interface IngestContext {
  readonly store: ObjectStore;
  readonly hash: HashProvider;
  readonly codec: ThreadedCodec;
  readonly namespace: Namespace;
  /** What the namespace can reach already. */
  readonly index: ChunkIndex;
  /** An image by its id, when this namespace has admitted it before. */
  readonly findAdmitted: (id: ImageId) => Promise<AdmittedImage | undefined>;
  /** Staging prefix of the build, without a slash at its end. */
  readonly stagingPrefix: string;
  /** Private directory for temporary files. */
  readonly scratchDirectory: string;
  readonly onProgress?: ((bytes: number, totalBytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}
