import { DecantError, PAGE_BYTES, type ChunkId, type ChunkSource } from '@decant/core';

import type { Manifest } from '../manifest/manifest.ts';
import type { Locator } from './locator.ts';
import { COALESCE_BYTES, readFrames, type PlacedChunk, type ReadPackRange } from './read-frames.ts';

export interface PackSourceOptions {
  readonly manifest: Manifest;
  /** Of the same image. */
  readonly locator: Locator;
  /** Reads a pack by its number in the locator: from memory, a file, or {@link createHttpRanges} for URLs. */
  readonly readRange: ReadPackRange<number>;
  /** A request for neighbours grows until it has so many bytes; default 1 MiB. */
  readonly coalesceBytes?: number | undefined;
}

/**
 * The chunks of an image in its packs. Chunks that lie within 64 KiB of each other in a pack come in one request,
 * in pack order; requests follow one another, and callers who want several at once make several calls. The same
 * chunk asked for by two calls is read twice; see {@link createChunkLoader}.
 * @throws CAS_LOCATOR_INVALID when the locator is not the image's, CAS_PACK_INVALID when a pack is encrypted.
 */
export function createPackSource(options: PackSourceOptions): ChunkSource {
  const { manifest, locator, readRange, coalesceBytes = COALESCE_BYTES } = options;
  if (locator.imageId !== manifest.id || locator.recordCount !== manifest.entryCount) {
    throw new DecantError('CAS_LOCATOR_INVALID', `The locator is not that of image ${manifest.id}.`);
  }
  if (locator.packs.some(({ nonce }) => nonce.some((byte) => byte !== 0))) {
    throw new DecantError('CAS_PACK_INVALID', 'A pack of the image is encrypted, which this version cannot read.');
  }

  const place = (id: ChunkId): PlacedChunk => {
    const index = manifest.indexOf(id);
    if (index === undefined) {
      throw new DecantError('CAS_CHUNK_MISSING', `Image ${manifest.id} has no chunk ${id}.`, {
        details: { chunk: id },
      });
    }
    const record = locator.record(index);
    if (record === null || record.plainBytes !== manifest.entry(index).pages * PAGE_BYTES) {
      throw new DecantError('CAS_LOCATOR_INVALID', `Record ${index} of the locator contradicts the manifest.`);
    }
    return { id, ...record };
  };

  return {
    async has(ids, { signal } = {}) {
      signal?.throwIfAborted();
      return new Set(ids.filter((id) => manifest.indexOf(id) !== undefined));
    },
    async *get(ids, { signal } = {}) {
      const nameOf = (pack: number) => locator.packs[pack]!.key;
      yield* readFrames([...new Set(ids)].map(place), { readRange, nameOf, coalesceBytes, signal });
    },
  };
}
