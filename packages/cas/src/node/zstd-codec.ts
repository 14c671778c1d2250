import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

import type { ChunkCodec } from '../chunk/codec.ts';
import { decodeChunk } from '../chunk/decoder-codec.ts';

/** A frame is kept only when it is at most this share of the plain bytes. */
const WORTH_STORING = 0.95;

/**
 * zstd from node:zlib; raw when it saves under 5 %. Results are copies of their exact size: what zlib hands out
 * keeps a much larger buffer alive.
 */
export function createZstdCodec(options: { /** 1 to 19; default 1. */ readonly level?: number } = {}): ChunkCodec {
  const { level = 1 } = options;
  if (!Number.isInteger(level) || level < 1 || level > 19) throw new RangeError('a zstd level is 1 to 19');
  return {
    encode(plain) {
      const options = {
        // Told the size, zstd makes its tables no larger than they need be: a seventh less time at 64 KiB.
        pledgedSrcSize: plain.length,
        chunkSize: 64 * 1024,
        params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_contentSizeFlag]: 1 },
      };
      const frame = zstdCompressSync(plain, options);
      if (frame.length > plain.length * WORTH_STORING) return { encoding: 'raw', stored: plain };
      return { encoding: 'zstd', stored: new Uint8Array(frame) };
    },
    decode: (stored, encoding, plainBytes) => decodeChunk(stored, encoding, plainBytes, decompress),
  };
}

/** One output buffer of the right size: no second one to join, and no room for a bomb. */
function decompress(stored: Uint8Array, plainBytes: number): Uint8Array {
  const plain = zstdDecompressSync(stored, { maxOutputLength: plainBytes, chunkSize: Math.max(64, plainBytes) });
  // What came in several buffers was joined in a part of Node's pool, all of which the result would keep alive.
  return plain.length === plain.buffer.byteLength ? new Uint8Array(plain.buffer) : new Uint8Array(plain);
}
