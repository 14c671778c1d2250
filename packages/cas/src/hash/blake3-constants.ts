/**
 * The constants of BLAKE3: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3, one function, fast everywhere",
 * sections 2.1 and 2.2. What the paper calls a chunk, 1,024 bytes, is called a leaf here; chunks are parts of images.
 */
export const KEY_BYTES = 32;
export const BLOCK_BYTES = 64;
export const LEAF_BYTES = 1024;

export const LEAF_START = 1 << 0;
export const LEAF_END = 1 << 1;
export const PARENT = 1 << 2;
export const ROOT = 1 << 3;
export const KEYED_HASH = 1 << 4;
export const DERIVE_KEY_CONTEXT = 1 << 5;
export const DERIVE_KEY_MATERIAL = 1 << 6;

export const INITIAL_VALUE = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
] as const;

/** Which message word each of the seven rounds takes when: table 2, applied round by round. */
export const SCHEDULE: readonly (readonly number[])[] = schedule();

function schedule(): number[][] {
  const permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
  const rounds: number[][] = [];
  let words = permutation.map((_, i) => i);
  for (let round = 0; round < 7; round++) {
    rounds.push(words);
    words = permutation.map((from) => words[from]!);
  }
  return rounds;
}
