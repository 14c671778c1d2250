import { open } from 'node:fs/promises';

import { MIB, PAGE_BYTES } from '@decant/core';

import type { ImagePiece } from '../chunk/piece.ts';
import { randomBytes } from '../test-data.ts';

/** Data in an image that is zeros elsewhere; pages from its start. */
export interface Extent {
  readonly page: number;
  readonly bytes: Uint8Array;
}

/** Pages of data that does not compress (`easy` false) or does. */
export function extent(page: number, pages: number, seed: number, easy = false): Extent {
  const bytes = randomBytes(seed, pages * PAGE_BYTES);
  if (easy) for (let i = 0; i < bytes.length; i += 2) bytes[i] = 1;
  return { page, bytes };
}

export async function writeSparse(path: string, extents: readonly Extent[], sizeBytes: number): Promise<void> {
  await using file = await open(path, 'w');
  for (const { page, bytes } of extents) await file.write(bytes, 0, bytes.length, page * PAGE_BYTES);
  await file.truncate(sizeBytes);
}

/** The same image for `chunkImage`; extents ascend and do not overlap. */
export function* piecesOf(extents: readonly Extent[], sizeBytes: number): Generator<ImagePiece> {
  let at = 0;
  for (const { page, bytes } of extents) {
    yield { type: 'zeros', lengthBytes: page * PAGE_BYTES - at };
    yield { type: 'data', bytes };
    at = page * PAGE_BYTES + bytes.length;
  }
  yield { type: 'zeros', lengthBytes: sizeBytes - at };
}

/** Pages of one stripe. */
export const STRIPE = (64 * MIB) / PAGE_BYTES;

/** Five stripes with a rest: data, short and long zero runs and repeats at and across the edges of stripes. */
export function edgyImage(): { extents: Extent[]; sizeBytes: number } {
  const extents = [
    extent(0, 300, 1, true),
    extent(400, 90, 2),
    extent(STRIPE - 40, 38, 3), // 2 zero pages before the edge and 3 after it: one hole
    extent(STRIPE + 3, 200, 4, true),
    extent(2 * STRIPE - 90, 89, 5), // 1 before, 1 after: data
    extent(2 * STRIPE + 1, 60, 6),
    extent(3 * STRIPE - 100, 200, 7), // data across the edge
    extent(3 * STRIPE + 2000, 200, 7), // the same again
    extent(4 * STRIPE - 7, 7, 8), // nothing in the fifth stripe but its last pages
    extent(5 * STRIPE - 1, 1, 9),
  ];
  return { extents, sizeBytes: (5 * STRIPE + 2) * PAGE_BYTES + 17 };
}
