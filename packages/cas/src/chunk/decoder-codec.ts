import { DecantError, type ChunkEncoding } from '@decant/core';

import type { ChunkCodec } from './codec.ts';
import { checkZstdFrame } from './zstd-frame.ts';

/**
 * Content of one zstd frame whose header declares `plainBytes`. It may throw, and what it gives is checked; its memory
 * should be bounded by `plainBytes`, whatever the frame's blocks hold.
 */
export type DecompressZstd = (frame: Uint8Array, plainBytes: number) => Uint8Array;

/**
 * The plain bytes of a stored chunk, or of as many bytes: whoever uses them compares their digest.
 * @throws CAS_ZSTD_INVALID, CAS_CHUNK_MISMATCH (raw, of another length).
 */
export function decodeChunk(
  stored: Uint8Array,
  encoding: ChunkEncoding,
  plainBytes: number,
  decompress: DecompressZstd,
): Uint8Array {
  const raw = checkFrame(stored, encoding, plainBytes);
  if (raw !== undefined) return raw;
  let plain: Uint8Array;
  try {
    plain = decompress(stored, plainBytes);
  } catch (error) {
    throw brokenFrame(error);
  }
  return checkContent(plain, plainBytes);
}

/** What can be known without decompressing: the chunk itself when it is raw, or that its frame declares `plainBytes`. */
export function checkFrame(stored: Uint8Array, encoding: ChunkEncoding, plainBytes: number): Uint8Array | undefined {
  if (encoding === 'raw') {
    if (stored.length === plainBytes) return stored;
    throw new DecantError('CAS_CHUNK_MISMATCH', `A raw chunk has ${stored.length} bytes, not ${plainBytes}.`);
  }
  checkZstdFrame(stored, plainBytes);
  return undefined;
}

export function brokenFrame(cause: unknown): DecantError {
  return new DecantError('CAS_ZSTD_INVALID', 'A zstd frame is broken or larger than declared.', { cause });
}

export function checkContent(plain: Uint8Array, plainBytes: number): Uint8Array {
  if (plain.length === plainBytes) return plain;
  throw new DecantError('CAS_ZSTD_INVALID', `A zstd frame has ${plain.length} bytes of content, not ${plainBytes}.`);
}

/**
 * A codec for where node:zlib is not, such as a browser: it reads zstd with a decoder that it is given, and stores what it
 * writes raw. `zstddec` (WebAssembly) from npm is one: after `await decoder.init()`,
 * `createDecoderCodec((frame, plainBytes) => decoder.decode(frame, plainBytes))`.
 */
export function createDecoderCodec(decompress: DecompressZstd): ChunkCodec {
  return {
    encode: (plain) => ({ encoding: 'raw', stored: plain }),
    decode: (stored, encoding, plainBytes) => decodeChunk(stored, encoding, plainBytes, decompress),
  };
}
