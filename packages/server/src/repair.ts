import type { HashProvider, ThreadedCodec } from '@decant/cas';
import { isDecantError, type ChunkId, type ImageId, type Namespace, type ObjectStore } from '@decant/core';
import { findDamage, relocate } from '@decant/ingest';

import type { MetadataStore } from './metadata/store.ts';

export interface RepairOptions {
  readonly metadata: MetadataStore;
  readonly store: ObjectStore;
  readonly hash: () => Promise<HashProvider>;
  readonly codec: ThreadedCodec;
}

export interface CheckedChunks {
  /** Chunks that are damaged at rest; they count as missing from now on. */
  readonly damaged: readonly ChunkId[];
  /** Whether the locator of the image was written again. */
  readonly relocated: boolean;
}

/** Images read at once from the metadata. */
const PAGE = 1000;

/**
 * Looks at chunks that a reader could not verify. What is damaged at rest is forgotten, so that the next upload of it is
 * taken; no object is touched. Then the locator of the image, when all of its chunks have a place, is made to say where.
 * @throws CAS_MANIFEST_INVALID when the manifest of the image is itself damaged
 */
export async function checkChunks(
  namespace: Namespace,
  image: ImageId,
  ids: readonly ChunkId[],
  { metadata, store, hash, codec }: RepairOptions,
  signal?: AbortSignal,
): Promise<CheckedChunks> {
  const index = metadata.images.chunkIndex(namespace);
  const context = { store, index, namespace, hash: await hash(), codec, signal };
  const damage = await findDamage(ids, context);
  if (damage.size > 0) await metadata.images.markDamaged(namespace, damage);
  const located = await index.locate(ids);
  return { damaged: ids.filter((id) => !located.has(id)), relocated: await relocate(image, context) };
}

/**
 * Tells every image of a namespace where chunks lie that were damaged and have been uploaded again. Safe to repeat: what
 * ends it halfway leaves the rest to the next call.
 */
export async function relocateReplaced(
  namespace: Namespace,
  { metadata, store, hash }: Omit<RepairOptions, 'codec'>,
  signal?: AbortSignal,
): Promise<void> {
  for (;;) {
    const replaced = await metadata.images.replacedChunks(namespace);
    if (replaced.length === 0) return;
    const index = metadata.images.chunkIndex(namespace);
    const context = { store, index, namespace, hash: await hash(), signal };
    let after: ImageId | undefined;
    do {
      const page = await metadata.images.listStreaming(namespace, { limit: PAGE, after });
      for (const id of page) {
        signal?.throwIfAborted();
        try {
          await relocate(id, context, replaced);
        } catch (error) {
          // Damaged in its manifest too: an import of it writes both again.
          if (!isDecantError(error, 'CAS_MANIFEST_INVALID')) throw error;
        }
      }
      after = page.length === PAGE ? page.at(-1) : undefined;
    } while (after !== undefined);
    await metadata.images.settleReplaced(namespace, replaced);
  }
}
