import { DecantError, isDecantError, toHex, type ChunkFrame, type ChunkId } from '@decant/core';

import type { ChunkCodec } from './codec.ts';
import type { HashProvider } from '../hash/hash-provider.ts';

export interface ExpectedChunk {
  readonly id: ChunkId;
  readonly plainBytes: number;
}

/**
 * The verified plain bytes of a stored chunk: decoded with a cap, of the expected length, hashing to the expected
 * id. @throws CAS_CHUNK_MISMATCH, CAS_ZSTD_INVALID.
 */
export function openChunk(
  frame: ChunkFrame,
  expected: ExpectedChunk,
  { hash, codec }: { readonly hash: HashProvider; readonly codec: ChunkCodec },
): Uint8Array {
  if (frame.id !== expected.id) {
    throw mismatch(expected.id, `Chunk ${frame.id} came where ${expected.id} was asked for.`);
  }
  if (frame.plainBytes !== expected.plainBytes) {
    throw mismatch(
      expected.id,
      `Chunk ${expected.id} is declared with ${frame.plainBytes} bytes, not ${expected.plainBytes}.`,
    );
  }
  const plain = decode(frame, expected, codec);
  verifyChunk(plain, expected, hash);
  return plain;
}

/** What the codec refuses, with the chunk in it that it happened to. */
function decode(frame: ChunkFrame, { id, plainBytes }: ExpectedChunk, codec: ChunkCodec): Uint8Array {
  try {
    return codec.decode(frame.stored, frame.encoding, plainBytes);
  } catch (error) {
    if (!isDecantError(error)) throw error;
    throw new DecantError(error.code, `Chunk ${id} cannot be decoded. ${error.message}`, {
      details: { ...error.details, chunk: id },
      cause: error,
    });
  }
}

/** @throws CAS_CHUNK_MISMATCH when plain bytes have another length or do not hash to the id. */
export function verifyChunk(plain: Uint8Array, expected: ExpectedChunk, hash: HashProvider): void {
  if (plain.length !== expected.plainBytes) {
    throw mismatch(expected.id, `Chunk ${expected.id} has ${plain.length} bytes, not ${expected.plainBytes}.`);
  }
  const actual = toHex(hash.blake3(plain));
  if (actual !== expected.id) throw mismatch(expected.id, `Chunk ${expected.id} hashes to ${actual}.`);
}

function mismatch(id: ChunkId, message: string): DecantError {
  return new DecantError('CAS_CHUNK_MISMATCH', message, { details: { chunk: id } });
}
