import { MIB, type CallOptions, type ChunkId } from '@decant/core';

import { ChunkMemory } from './chunk-memory.ts';

/** Plain chunks kept for a while: a cache that may forget any of them at any time. */
export interface ChunkStore {
  /** The chunk, or undefined when it is not there. The bytes are not to be written to. */
  get(id: ChunkId, plainBytes: number, options?: CallOptions): Promise<Uint8Array | undefined>;
  /** Keeps a copy of bytes that the caller has verified. Storing a chunk again is fine. */
  put(id: ChunkId, plain: Uint8Array, options?: CallOptions): Promise<void>;
  /** The subset of `ids` that is there now. */
  has(ids: readonly ChunkId[], options?: CallOptions): Promise<ReadonlySet<ChunkId>>;
}

/** A store in memory that forgets the chunks longest unused beyond `maxBytes` (default 64 MiB). */
export function createMemoryChunkStore(options: { readonly maxBytes?: number | undefined } = {}): ChunkStore {
  const { maxBytes = 64 * MIB } = options;
  const memory = new ChunkMemory(maxBytes);
  return {
    async get(id, plainBytes, { signal } = {}) {
      signal?.throwIfAborted();
      return memory.get(id, plainBytes);
    },
    async put(id, plain, { signal } = {}) {
      signal?.throwIfAborted();
      memory.put(id, plain.slice());
    },
    async has(ids, { signal } = {}) {
      signal?.throwIfAborted();
      return new Set(ids.filter((id) => memory.has(id)));
    },
  };
}
