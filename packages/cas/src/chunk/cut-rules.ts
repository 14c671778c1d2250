import { KIB, MIB, PAGE_BYTES } from '@decant/core';

/** Who decides where chunks may begin: our image writer and the content, or the content alone. */
export type ChunkLayout = 'hinted' | 'foreign';

export interface CutRules {
  /** No page-content cut below this many pages; a zero run this long is a hole. */
  readonly minPages: number;
  /** A chunk of this many pages is cut. */
  readonly maxPages: number;
  /** A page whose hash, as an unsigned number, is below this ends its chunk. */
  readonly cutBelow: number;
  /** Whether hints of the image writer cut. */
  readonly hints: boolean;
}

/** A page ends its chunk once in so many pages, on average. */
const HINTED_PAGES_PER_CUT = 160;
const FOREIGN_PAGES_PER_CUT = 12;

/**
 * hinted: 64 KiB to 1 MiB; without hints the mean is 16 + 160 × (1 - e^(-240 / 160)) ≈ 140 pages = 560 KiB, and the hints of
 * our image writer lower it to about 200 KiB on real trees (docs/decisions/0005-image-layout.md).
 * foreign: 16 to 256 KiB, mean 4 + 12 × (1 - e^(-60 / 12)) ≈ 16 pages = 64 KiB.
 * These never change within a version of the format.
 */
export const CUT_RULES: Readonly<Record<ChunkLayout, CutRules>> = {
  hinted: {
    minPages: (64 * KIB) / PAGE_BYTES,
    maxPages: MIB / PAGE_BYTES,
    cutBelow: Math.floor(2 ** 32 / HINTED_PAGES_PER_CUT),
    hints: true,
  },
  foreign: {
    minPages: (16 * KIB) / PAGE_BYTES,
    maxPages: (256 * KIB) / PAGE_BYTES,
    cutBelow: Math.floor(2 ** 32 / FOREIGN_PAGES_PER_CUT),
    hints: false,
  },
};

/** A stripe begins, and a chunk ends, at every multiple of this many pages (64 MiB). Holes are not cut. */
export const STRIPE_PAGES = (64 * MIB) / PAGE_BYTES;

/** Longest hole one manifest entry can hold, in pages (256 GiB). */
export const MAX_HOLE_PAGES = 2 ** 26;

const WORDS = PAGE_BYTES / 4;
export const PAGE_HASH_MULTIPLIER = 0x9e3779b1;
export const PAGE_HASH_SEED = 0x85ebca6b;
/** MurmurHash3's finalizer: exclusive or with itself shifted right, times a factor; at the end a shift by 16 alone. */
export const PAGE_HASH_FINISH = [
  [16, 0x85ebca6b],
  [13, 0xc2b2ae35],
] as const;
const MULTIPLIER = PAGE_HASH_MULTIPLIER;
const SEED = PAGE_HASH_SEED;

/**
 * The cut hash of the page that begins at word `at`, unsigned. Pages of zeros never cut, whatever their hash: the
 * chunker does not ask for it.
 *
 * Sixteen 32-bit lanes: word i goes to lane i mod 16, lane = (lane xor word) × 0x9e3779b1, lane j starting at
 * 0x85ebca6b × (j + 1). The lanes are then folded in order, each step a rotation by 13, an exclusive or and a
 * multiplication, and the result is finished by MurmurHash3's 32-bit finalizer (Appleby, public domain).
 * Sixteen lanes are four 128-bit vectors, so a SIMD kernel gives the same numbers. The hash steers cuts only: whoever
 * can choose content can choose cut points, never identities.
 */
export function pageHash(words: Uint32Array, at: number): number {
  let h0 = SEED;
  let h1 = Math.imul(SEED, 2);
  let h2 = Math.imul(SEED, 3);
  let h3 = Math.imul(SEED, 4);
  let h4 = Math.imul(SEED, 5);
  let h5 = Math.imul(SEED, 6);
  let h6 = Math.imul(SEED, 7);
  let h7 = Math.imul(SEED, 8);
  let h8 = Math.imul(SEED, 9);
  let h9 = Math.imul(SEED, 10);
  let h10 = Math.imul(SEED, 11);
  let h11 = Math.imul(SEED, 12);
  let h12 = Math.imul(SEED, 13);
  let h13 = Math.imul(SEED, 14);
  let h14 = Math.imul(SEED, 15);
  let h15 = Math.imul(SEED, 16);
  const end = at + WORDS;
  for (let i = at; i < end; i += 16) {
    h0 = Math.imul(h0 ^ words[i]!, MULTIPLIER);
    h1 = Math.imul(h1 ^ words[i + 1]!, MULTIPLIER);
    h2 = Math.imul(h2 ^ words[i + 2]!, MULTIPLIER);
    h3 = Math.imul(h3 ^ words[i + 3]!, MULTIPLIER);
    h4 = Math.imul(h4 ^ words[i + 4]!, MULTIPLIER);
    h5 = Math.imul(h5 ^ words[i + 5]!, MULTIPLIER);
    h6 = Math.imul(h6 ^ words[i + 6]!, MULTIPLIER);
    h7 = Math.imul(h7 ^ words[i + 7]!, MULTIPLIER);
    h8 = Math.imul(h8 ^ words[i + 8]!, MULTIPLIER);
    h9 = Math.imul(h9 ^ words[i + 9]!, MULTIPLIER);
    h10 = Math.imul(h10 ^ words[i + 10]!, MULTIPLIER);
    h11 = Math.imul(h11 ^ words[i + 11]!, MULTIPLIER);
    h12 = Math.imul(h12 ^ words[i + 12]!, MULTIPLIER);
    h13 = Math.imul(h13 ^ words[i + 13]!, MULTIPLIER);
    h14 = Math.imul(h14 ^ words[i + 14]!, MULTIPLIER);
    h15 = Math.imul(h15 ^ words[i + 15]!, MULTIPLIER);
  }
  let h = fold(fold(fold(fold(0, h0), h1), h2), h3);
  h = fold(fold(fold(fold(h, h4), h5), h6), h7);
  h = fold(fold(fold(fold(h, h8), h9), h10), h11);
  h = fold(fold(fold(fold(h, h12), h13), h14), h15);
  for (const [shift, factor] of PAGE_HASH_FINISH) h = Math.imul(h ^ (h >>> shift), factor);
  return (h ^ (h >>> 16)) >>> 0;
}

function fold(hash: number, lane: number): number {
  return Math.imul(((hash << 13) | (hash >>> 19)) ^ lane, MULTIPLIER);
}

/** Whether the page that begins at word `at` holds only zeros. */
export function isZeroPage(words: Uint32Array, at: number): boolean {
  // Most pages that are not zero say so in their first words.
  for (let i = at; i < at + WORDS; i += 8) {
    const any =
      words[i]! |
      words[i + 1]! |
      words[i + 2]! |
      words[i + 3]! |
      words[i + 4]! |
      words[i + 5]! |
      words[i + 6]! |
      words[i + 7]!;
    if (any !== 0) return false;
  }
  return true;
}
