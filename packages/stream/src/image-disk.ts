import {
  createChunkLoader,
  readImage,
  type ChunkLoaderOptions,
  type ChunkLoaderStats,
  type ExpectedChunk,
  type Manifest,
  type RandomAccess,
} from '@decant/cas';
import { DecantError, isDecantError } from '@decant/core';

export interface ImageDiskOptions extends Omit<ChunkLoaderOptions, 'failure'> {
  readonly manifest: Manifest;
}

export interface ImageDiskStats extends ChunkLoaderStats {
  /** Size of the image as a disk, in bytes. */
  readonly bytesVirtual: number;
}

export interface ImageDisk extends RandomAccess, AsyncDisposable {
  stats(): ImageDiskStats;
}

/**
 * An image as a disk whose chunks are fetched when they are first read. A byte is only given from a chunk that
 * was verified; a chunk is fetched once however many readers wait for it; holes are zeros.
 * `read` throws STREAM_READ_FAILED when a chunk could not be had, and RangeError outside the disk.
 */
export function createImageDisk(options: ImageDiskOptions): ImageDisk {
  const { manifest, ...rest } = options;
  const ending = new AbortController();
  const signal = rest.signal === undefined ? ending.signal : AbortSignal.any([rest.signal, ending.signal]);
  const loader = createChunkLoader({ ...rest, failure: failed, signal });
  return {
    sizeBytes: manifest.virtualBytes,
    stats: () => {
      const { chunksFetched, bytesFetched, rounds } = loader.stats();
      return { chunksFetched, bytesFetched, bytesVirtual: manifest.virtualBytes, rounds };
    },
    async read(offset, lengthBytes, call = {}) {
      signal.throwIfAborted();
      return readImage(manifest, loader, offset, lengthBytes, call);
    },
    async [Symbol.asyncDispose]() {
      ending.abort(new DecantError('STREAM_READ_FAILED', 'The disk was closed.', { retryable: false }));
      await loader.idle();
    },
  };
}

function failed({ id, plainBytes }: ExpectedChunk, cause: unknown): DecantError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new DecantError('STREAM_READ_FAILED', `Chunk ${id} could not be fetched and verified: ${why}`, {
    details: { chunk: id, plainBytes },
    hint: hintFor(cause),
    cause,
  });
}

function hintFor(cause: unknown): string {
  if (!isDecantError(cause)) return 'Try again.';
  if (!cause.code.startsWith('CAS_'))
    return cause.hint ?? 'Check that the server and its store answer, then try again.';
  return 'The image is damaged where it is stored: import or build it again. "decant image verify IMAGE" reads every chunk.';
}
