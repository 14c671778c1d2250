import type { BlobSigner } from '@decant/dataplane';
import type { ChunkId, ImageId, Namespace, ObjectStore } from '@decant/core';

import type { ImageBuilder } from './builder/image-builder.ts';
import type { MetadataStore } from './metadata/store.ts';
import type { MountedRegistry } from './registry/registry.ts';
import type { CheckedChunks } from './repair.ts';
import type { SnapshotRegistrar } from './snapshots/register.ts';

/** What the routes work on. */
export interface Services {
  readonly metadata: MetadataStore;
  readonly store: ObjectStore;
  /** A signer whose URLs lead to this server as the caller sees it: at `origin`. */
  readonly signerFor: (origin: string) => BlobSigner;
  /** Where callers reach this server, when that is not where it listens: `https://decant.example`. */
  readonly publicOrigin: string | undefined;
  /** Serves the signed URLs of a store that has no HTTP of its own. */
  readonly gateway: (request: Request) => Promise<Response>;
  readonly registry: MountedRegistry;
  readonly builder: ImageBuilder;
  readonly registrar: SnapshotRegistrar;
  /** Looks at chunks of an image that a reader could not verify; see `checkChunks`. */
  readonly checkChunks: (namespace: Namespace, image: ImageId, ids: readonly ChunkId[]) => Promise<CheckedChunks>;
  /** Wakes the worker: there is a new job. */
  readonly poke: () => void;
}

/** Path under which the object gateway answers. */
export const OBJECTS_PATH = '/objects';

/** A host that no resolver knows (RFC 6761): requests to it can only mean a handler in the caller's own process. */
export const EMBEDDED_HOST = 'decant.invalid';
