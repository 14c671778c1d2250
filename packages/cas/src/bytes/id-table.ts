import { fromHex, type ChunkId } from '@decant/core';

import { viewOf } from './bytes-reader.ts';

/** Words of the secret of {@link secretHash}. */
export const SECRET_WORDS = 34;

/**
 * A 32-bit hash of the 32-byte id at `at`. Ids come from outside and may be chosen, so places in tables depend on a
 * secret of random words: the top halves of two multilinear hashes of the 16-bit words (Carter and Wegman's universal
 * hashing; 16-bit words in 32-bit sums, because only the upper bits of such a sum are universal).
 */
export function secretHash(view: DataView, at: number, secret: Uint32Array): number {
  let high = secret[32]!;
  let low = secret[33]!;
  for (let i = 0; i < 16; i++) {
    const word = view.getUint16(at + 2 * i, true);
    high = (high + Math.imul(word, secret[i]!)) | 0;
    low = (low + Math.imul(word, secret[16 + i]!)) | 0;
  }
  return (high & 0xffff0000) | (low >>> 16);
}

/**
 * Which 32-byte ids at the head of fixed-size rows are the first of their kind: an open-addressing table of row
 * numbers, 8 to 16 bytes a row.
 */
export class IdTable {
  readonly #view: DataView;
  readonly #start: number;
  readonly #stride: number;
  /** Row number + 1, or 0 for a free place. */
  readonly #table: Uint32Array;
  readonly #factors = crypto.getRandomValues(new Uint32Array(SECRET_WORDS));
  size = 0;

  constructor(bytes: Uint8Array, start: number, stride: number, rows: number) {
    this.#view = viewOf(bytes);
    this.#start = start;
    this.#stride = stride;
    this.#table = new Uint32Array(2 ** Math.ceil(Math.log2(Math.max(4, rows * 2))));
  }

  /** Adds a row; returns the first row with its id, which is the row itself when the id is new. */
  add(row: number): number {
    const at = this.#start + row * this.#stride;
    const place = this.#place(this.#view, at);
    const found = this.#table[place]!;
    if (found !== 0) return found - 1;
    this.#table[place] = row + 1;
    this.size++;
    return row;
  }

  find(id: ChunkId): number | undefined {
    const found = this.#table[this.#place(viewOf(fromHex(id)), 0)]!;
    return found === 0 ? undefined : found - 1;
  }

  /** Whether an added row is the first with its id. */
  isFirst(row: number): boolean {
    return this.#table[this.#place(this.#view, this.#start + row * this.#stride)] === row + 1;
  }

  /** The place that holds the id at `at`, or the free one where it belongs. */
  #place(view: DataView, at: number): number {
    const mask = this.#table.length - 1;
    for (let place = secretHash(view, at, this.#factors) & mask; ; place = (place + 1) & mask) {
      const found = this.#table[place]!;
      if (found === 0 || this.#equal(view, at, this.#start + (found - 1) * this.#stride)) return place;
    }
  }

  #equal(view: DataView, at: number, row: number): boolean {
    for (let i = 0; i < 32; i += 4) {
      if (view.getUint32(at + i, true) !== this.#view.getUint32(row + i, true)) return false;
    }
    return true;
  }
}
