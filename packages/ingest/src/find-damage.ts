import { verifyChunkAside, type HashProvider, type ThreadedCodec } from '@decant/cas';
import { isDecantError, type ChunkId, type ChunkIndex, type ChunkLocation, type ObjectStore } from '@decant/core';

const DAMAGE: ReadonlySet<string> = new Set(['CAS_CHUNK_MISMATCH', 'CAS_ZSTD_INVALID', 'OBJECT_NOT_FOUND']);

/** Those of `ids` that do not read back as what they are, and where they lie. Chunks that the index does not know are none. */
export async function findDamage(
  ids: readonly ChunkId[],
  context: {
    readonly store: ObjectStore;
    readonly index: ChunkIndex;
    readonly hash: HashProvider;
    readonly codec: ThreadedCodec;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<ReadonlyMap<ChunkId, ChunkLocation>> {
  const { store, index, hash, codec, signal } = context;
  const damaged = new Map<ChunkId, ChunkLocation>();
  for (const [id, location] of await index.locate(ids)) {
    signal?.throwIfAborted();
    const { packKey, offset, storedBytes, plainBytes, encoding } = location;
    try {
      const stored = await store.get(packKey, { range: { offset, lengthBytes: storedBytes }, signal });
      await verifyChunkAside({ id, encoding, plainBytes, stored }, { id, plainBytes }, { hash, codec });
    } catch (error) {
      signal?.throwIfAborted();
      // Anything else, such as a store that does not answer, says nothing about the chunk.
      const found = error instanceof RangeError || (isDecantError(error) && DAMAGE.has(error.code));
      if (!found) throw error;
      damaged.set(id, location);
    }
  }
  return damaged;
}
