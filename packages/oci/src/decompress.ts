import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';

import { DecantError, isDecantError, releaseBytes } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';
import { StreamCursor } from './byte-cursor.ts';
import { zstdFrames } from './zstd-frames.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

const OUTPUT_BYTES = 256 * 1024;

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
    yield* through(source, createGunzip({ chunkSize: OUTPUT_BYTES }), options);
    return;
  }
  const cursor = new StreamCursor(source, options.signal);
  const windowLog = Math.min(31, Math.max(10, Math.ceil(Math.log2(options.zstdWindowBytes))));
  try {
    for await (const frame of zstdFrames(cursor, options.zstdWindowBytes)) {
      yield* through(
        frame.bytes,
        createZstdDecompress({ chunkSize: OUTPUT_BYTES, params: { [constants.ZSTD_d_windowLogMax]: windowLog } }),
        options,
      );
    }
  } finally {
    await cursor.close();
  }
}

/** Feeds a source through one decoder; whatever ends first, both are given up and nothing is left running. */
async function* through(
  source: AsyncIterable<Uint8Array>,
  decoder: Gunzip | ZstdDecompress,
  { lend = false }: ReadOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  let fedBytes = 0;
  let allFed = false;
  let sourceFailure: { readonly error: unknown } | undefined;
  const closed = new Promise<void>((resolve) => decoder.once('close', resolve));
  const feed = async () => {
    try {
      for await (const piece of source) {
        if (decoder.destroyed || decoder.readableEnded) return;
        fedBytes += piece.length;
        if (!decoder.write(piece)) {
          await Promise.race([new Promise<void>((resolve) => decoder.once('drain', resolve)), closed]);
        }
      }
      allFed = true;
      if (!decoder.destroyed) decoder.end();
    } catch (error) {
      sourceFailure = { error };
      decoder.destroy();
    }
  };
  const feeding = feed();
  let decoderFailure: { readonly error: unknown } | undefined;
  try {
    for await (const piece of decoder as AsyncIterable<Uint8Array>) {
      yield piece;
      // The decoder has done with a buffer that is full; left to the collector, a gigabyte of them costs it seconds.
      if (lend) releaseBytes(piece);
    }
  } catch (error) {
    decoderFailure = { error };
  } finally {
    decoder.destroy();
    await feeding;
  }
  if (sourceFailure !== undefined) throw sourceFailure.error;
  if (decoderFailure !== undefined) throw brokenData(decoderFailure.error, decoder.bytesWritten);
  if (!allFed || decoder.bytesWritten < fedBytes) {
    throw brokenData(new Error('there is something after the end of the compressed data'), decoder.bytesWritten);
  }
}

function brokenData(error: unknown, offset: number): unknown {
  if (isDecantError(error)) return error;
  const what = error instanceof Error ? error.message : String(error);
  return new DecantError('LAYER_INVALID', `The compressed layer is broken near byte ${offset}: ${what}.`, {
    details: { offset },
    cause: error,
  });
}

/** How data is compressed, by its first four bytes. */
export function detectCompression(start: Uint8Array): Compression {
  if (start[0] === 0x1f && start[1] === 0x8b) return 'gzip';
  if (start[0] === 0x28 && start[1] === 0xb5 && start[2] === 0x2f && start[3] === 0xfd) return 'zstd';
  // A stream of zstd may begin with a skippable frame.
  if ((start[0]! & 0xf0) === 0x50 && start[1] === 0x2a && start[2] === 0x4d && start[3] === 0x18) return 'zstd';
  return 'none';
}
