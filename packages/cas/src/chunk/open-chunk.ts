import { DecantError, isDecantError, toHex, type ChunkFrame, type ChunkId } from '@decant/core';

import type { ChunkCodec, ThreadedCodec } from './codec.ts';
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
  checkDeclared(frame, expected);
  let plain: Uint8Array;
  try {
    plain = codec.decode(frame.stored, frame.encoding, expected.plainBytes);
  } catch (error) {
    throw inChunk(error, expected);
  }
  verifyChunk(plain, expected, hash);
  return plain;
}

/** Checks a stored chunk as `openChunk` does, decoded on another thread; the frame must not change until then. */
export async function verifyChunkAside(
  frame: ChunkFrame,
  expected: ExpectedChunk,
  { hash, codec }: { readonly hash: HashProvider; readonly codec: ThreadedCodec },
): Promise<void> {
  checkDeclared(frame, expected);
  const { stored, encoding } = frame;
  const problem = await codec
    .decodeAside(stored, encoding, expected.plainBytes, (plain) => problemOf(plain, expected, hash))
    .catch((error: unknown) => {
      throw inChunk(error, expected);
    });
  if (problem !== undefined) throw problem;
}

function checkDeclared(frame: ChunkFrame, { id, plainBytes }: ExpectedChunk): void {
  if (frame.id !== id) throw mismatch(id, `Chunk ${frame.id} came where ${id} was asked for.`);
  if (frame.plainBytes !== plainBytes) {
    throw mismatch(id, `Chunk ${id} is declared with ${frame.plainBytes} bytes, not ${plainBytes}.`);
  }
}

/** What the codec refuses, with the chunk in it that it happened to. */
function inChunk(error: unknown, { id }: ExpectedChunk): unknown {
  if (!isDecantError(error)) return error;
  return new DecantError(error.code, `Chunk ${id} cannot be decoded. ${error.message}`, {
    details: { ...error.details, chunk: id },
    cause: error,
  });
}

/** @throws CAS_CHUNK_MISMATCH when plain bytes have another length or do not hash to the id. */
export function verifyChunk(plain: Uint8Array, expected: ExpectedChunk, hash: HashProvider): void {
  const problem = problemOf(plain, expected, hash);
  if (problem !== undefined) throw problem;
}

function problemOf(plain: Uint8Array, { id, plainBytes }: ExpectedChunk, hash: HashProvider): DecantError | undefined {
  if (plain.length !== plainBytes) {
    return mismatch(id, `Chunk ${id} has ${plain.length} bytes, not ${plainBytes}.`);
  }
  const actual = toHex(hash.blake3(plain));
  return actual === id ? undefined : mismatch(id, `Chunk ${id} hashes to ${actual}.`);
}

function mismatch(id: ChunkId, message: string): DecantError {
  return new DecantError('CAS_CHUNK_MISMATCH', message, { details: { chunk: id } });
}
