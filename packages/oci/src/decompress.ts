import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';

import type { ReadOptions } from './blob-source.ts';
import { StreamCursor } from './byte-cursor.ts';
import { createBuffers, Decoding, INPUT_BYTES, OUTPUT_BYTES, type DecodingBuffers } from './decoding.ts';
import { zstdFrames } from './zstd-frames.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

/**
 * The plain bytes of a compressed stream: all members of gzip, all frames of zstd. The source is always read
 * to its end. The caller bounds the output by not asking for more.
 * @throws LAYER_INVALID for broken data, also for anything after the last member; LIMIT_EXCEEDED for a zstd
 * window over `zstdWindowBytes`.
 */
export async function* decompress(
  source: AsyncIterable<Uint8Array>,
  compression: Compression,
  options: ReadOptions & { readonly zstdWindowBytes: number },
): AsyncGenerator<Uint8Array, void, undefined> {
  if (compression === 'none') {
    yield* source;
    return;
  }
  if (compression === 'gzip') {
    yield* through(source, createGunzip({ chunkSize: OUTPUT_BYTES }), createBuffers(options));
    return;
  }
  const cursor = new StreamCursor(source, options.signal);
  const buffers = createBuffers(options);
  const windowLog = Math.min(31, Math.max(10, Math.ceil(Math.log2(options.zstdWindowBytes))));
  try {
    for await (const frame of zstdFrames(cursor, options.zstdWindowBytes)) {
      yield* through(
        frame.bytes,
        createZstdDecompress({ chunkSize: OUTPUT_BYTES, params: { [constants.ZSTD_d_windowLogMax]: windowLog } }),
        buffers,
      );
    }
  } finally {
    await cursor.close();
  }
}

/**
 * Feeds a source through one decoder, which works on one part while the reader has what came of the one before. Whatever
 * ends first, both are given up and nothing is left running.
 */
async function* through(
  source: AsyncIterable<Uint8Array>,
  decoder: Gunzip | ZstdDecompress,
  buffers: DecodingBuffers,
): AsyncGenerator<Uint8Array, void, undefined> {
  const parts = partsOf(source, buffers.input);
  const work = new Decoding(decoder, buffers.output);
  let next = ahead(parts);
  let held: Uint8Array | undefined;
  try {
    for (let ended = false; !ended;) {
      const part = await next;
      ended = part.done === true;
      if (part.done === true) {
        work.end();
      } else {
        work.begin(part.value);
        next = ahead(parts);
      }
      for (;;) {
        // What the part before gave lies in the buffer that is not written to now.
        if (held !== undefined) yield* work.lend(held);
        held = await work.output();
        if (held === undefined || work.finished()) break;
      }
    }
    if (held !== undefined) yield* work.lend(held);
  } catch (error) {
    // A source that failed is the reason, whatever its decoder says.
    await next;
    throw error;
  } finally {
    decoder.destroy();
    await next.catch(() => undefined);
    await parts.return();
  }
}

/** Asks for a part while the decoder works on another one; a failure is whoever's that awaits it. */
function ahead(parts: AsyncGenerator<Uint8Array, void, undefined>): Promise<IteratorResult<Uint8Array, void>> {
  const next = parts.next();
  next.catch(() => undefined);
  return next;
}

/** Copies of what the source gives, in two buffers by turns: a part is good until the next but one is asked for. */
async function* partsOf(
  source: AsyncIterable<Uint8Array>,
  buffers: DecodingBuffers['input'],
): AsyncGenerator<Uint8Array, void, undefined> {
  let count = 0;
  for await (const piece of source) {
    for (let at = 0; at < piece.length; at += INPUT_BYTES) {
      const from = piece.subarray(at, at + INPUT_BYTES);
      const part = buffers[count++ % 2]!.subarray(0, from.length);
      part.set(from);
      yield part;
    }
  }
}

/** How data is compressed, by its first four bytes. */
export function detectCompression(start: Uint8Array): Compression {
  if (start[0] === 0x1f && start[1] === 0x8b) return 'gzip';
  if (start[0] === 0x28 && start[1] === 0xb5 && start[2] === 0x2f && start[3] === 0xfd) return 'zstd';
  // A stream of zstd may begin with a skippable frame.
  if ((start[0]! & 0xf0) === 0x50 && start[1] === 0x2a && start[2] === 0x4d && start[3] === 0x18) return 'zstd';
  return 'none';
}
