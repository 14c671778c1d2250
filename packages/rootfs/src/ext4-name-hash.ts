import type { ByteString } from './tree.ts';

/** How a filesystem hashes the names in an indexed directory: from its superblock. */
export interface NameHash {
  /** Four words; all zero stands for the start values of MD4. */
  readonly seed: readonly [number, number, number, number];
  /** Whether bytes from 128 count as negative, as on the machine that made the filesystem. */
  readonly signed: boolean;
}

const MD4_START = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476] as const;
const ROUNDS = [
  { order: [0, 1, 2, 3, 4, 5, 6, 7], turns: [3, 7, 11, 19], add: 0 },
  { order: [1, 3, 5, 7, 0, 2, 4, 6], turns: [3, 5, 9, 13], add: 0x5a827999 },
  { order: [3, 7, 2, 6, 1, 5, 0, 4], turns: [3, 9, 11, 15], add: 0x6ed9eba1 },
] as const;
const PART_BYTES = 32;
/** Stands for the end of a directory when it is read, so that no name may have it. */
const END_OF_DIRECTORY = 0xffff_fffe;

/**
 * The hash of a name as indexes of ext4 order it (`half_md4`: MD4 of RFC 1320 with a third of its steps, over parts of 32
 * bytes). `major` is even: an odd one in an index says that the names of the block before have it too.
 */
export function hashName(name: ByteString, { seed, signed }: NameHash): { major: number; minor: number } {
  const state = Int32Array.from(seed.some((word) => word !== 0) ? seed : MD4_START);
  const words = new Int32Array(PART_BYTES / 4);
  for (let start = 0; start < name.length; start += PART_BYTES) {
    readWords(name, start, signed, words);
    mix(state, words);
  }
  const major = (state[1]! & ~1) >>> 0;
  return { major: major === END_OF_DIRECTORY ? END_OF_DIRECTORY - 2 : major, minor: state[2]! >>> 0 };
}

/** Big-endian words; what is left of them is filled with the number of bytes that are left of the name. */
function readWords(name: ByteString, start: number, signed: boolean, words: Int32Array): void {
  const left = name.length - start;
  const byte = left & 0xff;
  const filling = (byte * 0x0101_0101) | 0;
  for (let word = 0; word < words.length; word++) {
    let value = filling;
    for (let i = word * 4; i < Math.min(word * 4 + 4, left); i++) {
      const code = name.charCodeAt(start + i);
      value = ((signed ? (code << 24) >> 24 : code) + (value << 8)) | 0;
    }
    words[word] = value;
  }
}

function mix(state: Int32Array, words: Int32Array): void {
  let [a, b, c, d] = state as unknown as [number, number, number, number];
  for (const [round, { order, turns, add }] of ROUNDS.entries()) {
    for (const [step, index] of order.entries()) {
      const chosen = round === 0 ? d ^ (b & (c ^ d)) : round === 1 ? ((b & c) + ((b ^ c) & d)) | 0 : b ^ c ^ d;
      const sum = (a + chosen + words[index]! + add) | 0;
      const turn = turns[step % 4]!;
      [a, b, c, d] = [d, (sum << turn) | (sum >>> (32 - turn)), b, c];
    }
  }
  state[0]! += a;
  state[1]! += b;
  state[2]! += c;
  state[3]! += d;
}
