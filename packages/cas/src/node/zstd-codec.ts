import { constants, zstdCompressSync, zstdDecompressSync, type ZstdOptions } from 'node:zlib';

import { DecantError, KIB } from '@decant/core';
import { ZstdCompress } from 'minizlib';

import type { EncodedChunk, ThreadedCodec } from '../chunk/codec.ts';
import { brokenFrame, checkContent, checkFrame, decodeChunk } from '../chunk/decoder-codec.ts';
import { ZstdContext } from './zstd-context.ts';
import { ZstdDecompressor } from './zstd-decompressor.ts';

/** A frame is kept only when it is at most this share of the plain bytes. */
const WORTH_STORING = 0.95;

/** Frames up to this length come out of one buffer, which is used again: all of foreign images. */
const OUTPUT_BYTES = 264 * KIB;
/** For level 1, twice the hash table that zstd takes for small inputs: 0.6 % fewer bytes for 1 % more time. */
const FAST_HASH_LOG = 14;
/**
 * Up to this level a context that is used again gives the frames of a new one. From level 5 on, zstd's row hash tables are
 * salted with what the context did before, and equal chunks would be stored in different bytes.
 */
const LAST_REPEATABLE_LEVEL = 4;

/**
 * zstd from node:zlib; raw when it saves under 5 %. Frames depend on the plain bytes and the level alone. Up to level 4
 * one context, of about 1 MB, serves all of them, in two thirds of the time (docs/decisions/0004-cas-performance.md). What
 * is done aside goes to libuv's threads, with a context for each call at work; levels from 5 on are compressed at once.
 */
export function createZstdCodec(options: { /** 1 to 19; default 1. */ readonly level?: number } = {}): ThreadedCodec {
  const { level = 1 } = options;
  if (!Number.isInteger(level) || level < 1 || level > 19) throw new RangeError('a zstd level is 1 to 19');
  let compress: ((plain: Uint8Array) => Uint8Array) | undefined;
  let compressAside: ((plain: Uint8Array) => Promise<Uint8Array>) | undefined;
  const decompressors: ZstdDecompressor[] = [];
  return {
    encode(plain) {
      compress ??= createCompressor(level);
      return worthStoring(compress(plain), plain);
    },
    async encodeAside(plain) {
      compressAside ??= createThreadedCompressor(level);
      return worthStoring(await compressAside(plain), plain);
    },
    decode: (stored, encoding, plainBytes) => decodeChunk(stored, encoding, plainBytes, decompress),
    async decodeAside(stored, encoding, plainBytes, use) {
      const raw = checkFrame(stored, encoding, plainBytes);
      if (raw !== undefined) return use(raw);
      const context = decompressors.pop() ?? new ZstdDecompressor();
      let plain: Uint8Array;
      try {
        plain = checkContent(await context.decompress(stored, plainBytes), plainBytes);
      } catch (error) {
        // One that failed is not used again: what is left of a broken frame must not be taken for the next.
        context.close();
        throw brokenFrame(error);
      }
      try {
        return use(plain);
      } finally {
        decompressors.push(context);
      }
    },
  };
}

function worthStoring(frame: Uint8Array, plain: Uint8Array): EncodedChunk {
  if (frame.length > plain.length * WORTH_STORING) return { encoding: 'raw', stored: plain };
  return { encoding: 'zstd', stored: frame };
}

function paramsOf(level: number): Record<number, number> {
  return {
    [constants.ZSTD_c_compressionLevel]: level,
    [constants.ZSTD_c_contentSizeFlag]: 1,
    ...(level === 1 ? { [constants.ZSTD_c_hashLog]: FAST_HASH_LOG } : {}),
  };
}

/** Gives one frame, with its content size, for each input; in memory of the frame's size. */
function createCompressor(level: number): (plain: Uint8Array) => Uint8Array {
  const params = paramsOf(level);
  if (level > LAST_REPEATABLE_LEVEL) {
    // Told the size, zstd makes its tables no larger than they need be.
    return (plain) => {
      const options = { pledgedSrcSize: plain.length, params };
      return new Uint8Array(zstdCompressSync(plain, options));
    };
  }
  // Every write is a frame. minizlib's types are of zlib's options only.
  const options: ZstdOptions = { flush: constants.ZSTD_e_end, chunkSize: OUTPUT_BYTES, params };
  const stream = new ZstdCompress(options as ConstructorParameters<typeof ZstdCompress>[0]);
  return (plain) => {
    stream.write(plain);
    const frame = stream.read();
    if (!(frame instanceof Uint8Array)) throw new DecantError('INTERNAL', 'zstd gave no frame.');
    // Small ones come in a part of a larger buffer.
    return frame.buffer.byteLength === frame.length ? frame : new Uint8Array(frame);
  };
}

/** The same frames on other threads, up to level 4: contexts that are done with one serve the next. */
function createThreadedCompressor(level: number): (plain: Uint8Array) => Promise<Uint8Array> {
  if (level > LAST_REPEATABLE_LEVEL) {
    const compress = createCompressor(level);
    return (plain) => Promise.resolve(compress(plain));
  }
  const params = paramsOf(level);
  const idle: ZstdContext[] = [];
  return async (plain) => {
    const context = idle.pop() ?? new ZstdContext(params, OUTPUT_BYTES);
    // One that failed is not used again.
    const frame = await context.compress(plain);
    idle.push(context);
    return frame;
  };
}

/**
 * The content of a frame, with no room for a bomb. Node takes another buffer once the first is full, which the collector
 * would be left with for every chunk: so there is room for a byte more than fits.
 */
function decompress(stored: Uint8Array, plainBytes: number): Uint8Array {
  const chunkSize = Math.max(64, plainBytes + 1);
  return ownBytes(zstdDecompressSync(stored, { maxOutputLength: plainBytes, chunkSize }), chunkSize);
}

/** What Node gave, in memory of that size alone. */
function ownBytes(plain: Buffer, chunkSize: number): Uint8Array {
  const { buffer, byteOffset, length } = plain;
  const own = buffer instanceof ArrayBuffer && byteOffset === 0 && buffer.byteLength === chunkSize;
  // What is small, or was joined, is a part of Node's pool, all of which the result would keep alive.
  return own ? new Uint8Array(buffer.transfer(length)) : new Uint8Array(plain);
}
