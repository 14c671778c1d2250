import { MIB, type ChunkSource } from '@decant/core';

import type { Manifest } from '../manifest/manifest.ts';
import { createChunkLoader, type ChunkLoaderOptions } from '../store/chunk-loader.ts';
import type { RandomAccess } from './random-access.ts';
import { readImage } from './read-image.ts';

export type ImageReaderOptions = Pick<ChunkLoaderOptions, 'hash' | 'codec' | 'cache'>;

/** Chunks a reader remembers, and calls it makes to the source at a time. */
const REMEMBERED_BYTES = 8 * MIB;
const CALLS = 4;

/**
 * An image as one file: every chunk is verified before a byte of it is given, holes read as zeros. It remembers the last
 * 8 MiB of chunks, and a chunk that several reads wait for is fetched once. It tries nothing twice: that is the source's.
 * `read` throws CAS_CHUNK_MISMATCH, CAS_ZSTD_INVALID, CAS_CHUNK_MISSING, and what the source throws.
 */
export function createImageReader(manifest: Manifest, source: ChunkSource, options: ImageReaderOptions): RandomAccess {
  const loader = createChunkLoader({
    ...options,
    source,
    memoryBytes: REMEMBERED_BYTES,
    concurrency: CALLS,
    attempts: 1,
  });
  return {
    sizeBytes: manifest.virtualBytes,
    read: (offset, lengthBytes, { signal } = {}) => readImage(manifest, loader, offset, lengthBytes, { signal }),
  };
}
