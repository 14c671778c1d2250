import { PAGE_BYTES, toHex, type ChunkId } from '@decant/core';

import type { ImageChunk } from './image-cutter.ts';
import type { HashProvider } from './hash/hash-provider.ts';
import type { ManifestFacts } from './manifest/manifest-layout.ts';

/** Pseudo-random bytes that any language can make again: little-endian words of Marsaglia's xorshift32 (13, 17, 5). */
export function randomBytes(seed: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(Math.ceil(length / 4) * 4);
  const view = new DataView(bytes.buffer);
  let state = seed >>> 0 || 1;
  for (let at = 0; at < bytes.length; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    view.setUint32(at, state, true);
  }
  return bytes.subarray(0, length);
}

export function randomPages(seed: number, pages: number): Uint8Array<ArrayBuffer> {
  return randomBytes(seed, pages * PAGE_BYTES);
}

export const FACTS: ManifestFacts = {
  format: 'erofs',
  layout: 'hinted',
  architecture: 'amd64',
  configDigest: new Uint8Array(32).fill(7),
};

export function chunkOf(plain: Uint8Array, hash: HashProvider): { id: ChunkId; plain: Uint8Array; plainBytes: number } {
  return { id: toHex(hash.blake3(plain)) as ChunkId, plain, plainBytes: plain.length };
}

/** What `chunkImage` gives, with copies of the bytes. */
export async function collect(chunks: AsyncIterable<ImageChunk>): Promise<ImageChunk[]> {
  const all: ImageChunk[] = [];
  for await (const chunk of chunks) all.push(chunk.type === 'chunk' ? { ...chunk, bytes: chunk.bytes.slice() } : chunk);
  return all;
}

/** A copy with one bit changed. */
export function flipBit(bytes: Uint8Array, bit: number): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice();
  copy[bit >> 3] = copy[bit >> 3]! ^ (1 << (bit & 7));
  return copy;
}
