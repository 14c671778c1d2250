import { KIB, MIB } from '@decant/core';

import type { ChunkLayout } from './cut-rules.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import { openImageCutter, type ImageChunk, type ImageCutter } from '../image-cutter.ts';
import type { ImagePiece } from './piece.ts';

export interface ChunkImageOptions {
  readonly layout: ChunkLayout;
  readonly hash: HashProvider;
  readonly signal?: AbortSignal | undefined;
}

/** Bytes of data between two turns of the event loop, so that an abort, a timer or a socket gets its turn. */
const BREATH_BYTES = 32 * MIB;

/**
 * Cuts an image into chunks and holes by the rules of the format (docs/formats/chunking.md); the last page is
 * filled with zeros. The result depends on the bytes and the hints only, never on how they are split into pieces.
 * Uses one buffer of 4 MiB. @throws RangeError for a hint that is not on a page boundary or a negative length.
 */
export async function* chunkImage(
  pieces: AsyncIterable<ImagePiece> | Iterable<ImagePiece>,
  options: ChunkImageOptions,
): AsyncGenerator<ImageChunk, void, undefined> {
  const { signal } = options;
  let sinceBreath = 0;
  signal?.throwIfAborted();
  using cutter = await openImageCutter(options);
  for await (const piece of pieces) {
    signal?.throwIfAborted();
    if (piece.type === 'cut') {
      cutter.hint();
      continue;
    }
    const length = piece.type === 'data' ? piece.bytes.length : piece.lengthBytes;
    if (!Number.isSafeInteger(length) || length < 0) throw new RangeError('a piece of an image has no such length');
    for (let done = 0; done < length;) {
      const taken = piece.type === 'data' ? copyInto(cutter, piece.bytes, done) : cutter.zeros(length - done);
      done += taken;
      for (let next = cutter.next(); next !== undefined; next = cutter.next()) {
        yield next;
        signal?.throwIfAborted();
      }
      if (piece.type !== 'data') continue;
      sinceBreath += taken;
      if (sinceBreath < BREATH_BYTES) continue;
      sinceBreath = 0;
      await new Promise((resolve) => setTimeout(resolve, 0));
      signal?.throwIfAborted();
    }
  }
  cutter.end();
  for (let next = cutter.next(); next !== undefined; next = cutter.next()) yield next;
}

/** Bytes that are copied and then hashed while the processor's cache has them. */
const PORTION_BYTES = 128 * KIB;

/** Copies a portion of bytes from `from` on, if there is room for it, and returns how many. */
function copyInto(cutter: ImageCutter, bytes: Uint8Array, from: number): number {
  const room = cutter.room();
  const count = Math.min(bytes.length - from, room.length, PORTION_BYTES);
  room.set(from === 0 && count === bytes.length ? bytes : bytes.subarray(from, from + count));
  cutter.filled(count);
  return count;
}
