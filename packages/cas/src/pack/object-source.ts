import {
  DecantError,
  isDecantError,
  type ChunkId,
  type ChunkIndex,
  type ChunkSource,
  type ObjectStore,
} from '@decant/core';

import { COALESCE_BYTES, readFrames, type PlacedChunk } from './read-frames.ts';

export interface ObjectSourceOptions {
  readonly store: ObjectStore;
  /** Where chunks lie in the objects of the store. */
  readonly index: ChunkIndex;
  /** A request for neighbours grows until it has so many bytes; default 1 MiB. */
  readonly coalesceBytes?: number | undefined;
}

/** Most ids in one question to the index: what {@link ChunkIndex} allows. */
const LOCATE_BATCH = 65_536;

/**
 * The chunks of packs in an object store, found through an index. As {@link createPackSource}, neighbours come in one ranged
 * read, in order of the packs' keys and of the offsets in them.
 * `get` throws CAS_CHUNK_MISSING when the index does not know a chunk or its pack is not there or too short.
 */
export function createObjectSource(options: ObjectSourceOptions): ChunkSource {
  const { store, index, coalesceBytes = COALESCE_BYTES } = options;

  async function locate(ids: readonly ChunkId[], signal: AbortSignal | undefined) {
    const all = [...new Set(ids)];
    const found: Awaited<ReturnType<ChunkIndex['locate']>>[] = [];
    for (let from = 0; from < all.length; from += LOCATE_BATCH) {
      signal?.throwIfAborted();
      found.push(await index.locate(all.slice(from, from + LOCATE_BATCH)));
    }
    return { all, find: (id: ChunkId) => found.find((batch) => batch.has(id))?.get(id) };
  }

  return {
    async has(ids, { signal } = {}) {
      signal?.throwIfAborted();
      const { all, find } = await locate(ids, signal);
      return new Set(all.filter((id) => find(id) !== undefined));
    },
    async *get(ids, { signal } = {}) {
      const { all, find } = await locate(ids, signal);
      const keys: string[] = [];
      const numbers = new Map<string, number>();
      const place = (id: ChunkId): PlacedChunk => {
        const location = find(id);
        if (location === undefined) throw missing(`The store has no chunk ${id}.`, { chunk: id });
        const { packKey, ...rest } = location;
        let pack = numbers.get(packKey);
        if (pack === undefined) numbers.set(packKey, (pack = keys.push(packKey) - 1));
        return { id, pack, ...rest };
      };
      yield* readFrames(all.map(place), {
        nameOf: (pack) => keys[pack]!,
        coalesceBytes,
        signal,
        async readRange(pack, offset, lengthBytes) {
          const key = keys[pack]!;
          try {
            return await store.get(key, { range: { offset, lengthBytes }, signal });
          } catch (error) {
            if (!(error instanceof RangeError) && !isDecantError(error, 'OBJECT_NOT_FOUND')) throw error;
            throw missing(`Pack ${key} is not there or is too short.`, { pack: key, offset, lengthBytes }, error);
          }
        },
      });
    },
  };
}

function missing(message: string, details: Record<string, unknown>, cause?: unknown): DecantError {
  return new DecantError('CAS_CHUNK_MISSING', message, { details, cause });
}
