import {
  BLOCK_BYTES,
  INITIAL_VALUE,
  LEAF_BYTES,
  LEAF_END,
  LEAF_START,
  PARENT,
  ROOT,
  SCHEDULE,
} from './blake3-constants.ts';
import {
  blake3Whole,
  createBlake3Stream,
  type Blake3Core,
  type Blake3Mode,
  type Blake3Stream,
  type TreeNode,
} from './blake3-tree.ts';
import type { Blake3Options } from './hash-provider.ts';

/**
 * BLAKE3 in plain TypeScript, one lane, after the specification (see blake3-constants.ts). About 60 MB/s. It is the
 * reference of the self-test, and gives the modes that hash-wasm lacks where the SIMD kernel cannot run.
 */

/** Which four state words each of a round's eight quarter rounds mixes: columns, then diagonals. */
const QUARTERS = Uint8Array.from(
  [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
  ].flat(),
);
const ORDER = Uint8Array.from(SCHEDULE.flat());

/** A compression that is not done yet. */
interface Pending {
  readonly chaining: Uint32Array;
  readonly words: Uint32Array;
  readonly counter: number;
  readonly blockLength: number;
  readonly flags: number;
}

/** One compression: sixteen words, of which a chaining value is the first eight. */
function compress({ chaining, words, counter, blockLength, flags }: Pending): Uint32Array {
  const state = new Uint32Array(16);
  state.set(chaining);
  state.set(INITIAL_VALUE.slice(0, 4), 8);
  state[12] = counter;
  state[13] = Math.floor(counter / 2 ** 32);
  state[14] = blockLength;
  state[15] = flags;
  for (let step = 0; step < 7 * 8; step++) {
    const quarter = (step & 7) * 4;
    const ia = QUARTERS[quarter]!;
    const ib = QUARTERS[quarter + 1]!;
    const ic = QUARTERS[quarter + 2]!;
    const id = QUARTERS[quarter + 3]!;
    let a = state[ia]!;
    let b = state[ib]!;
    let c = state[ic]!;
    let d = state[id]!;
    a = (a + b + words[ORDER[2 * step]!]!) | 0;
    d = rotateRight(d ^ a, 16);
    c = (c + d) | 0;
    b = rotateRight(b ^ c, 12);
    a = (a + b + words[ORDER[2 * step + 1]!]!) | 0;
    d = rotateRight(d ^ a, 8);
    c = (c + d) | 0;
    b = rotateRight(b ^ c, 7);
    state[ia] = a;
    state[ib] = b;
    state[ic] = c;
    state[id] = d;
  }
  for (let i = 0; i < 8; i++) {
    state[i] = state[i]! ^ state[i + 8]!;
    state[i + 8] = state[i + 8]! ^ chaining[i]!;
  }
  return state;
}

function rotateRight(value: number, bits: number): number {
  return (value >>> bits) | (value << (32 - bits));
}

/** Little-endian words of up to one block, zero-padded. */
function blockWords(bytes: Uint8Array, start: number, end: number): Uint32Array {
  const words = new Uint32Array(16);
  for (let i = start; i < end; i++) {
    const at = i - start;
    words[at >> 2] = words[at >> 2]! | (bytes[i]! << (8 * (at & 3)));
  }
  return words;
}

function wordsToBytes(words: Uint32Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4 * words.length);
  const view = new DataView(bytes.buffer);
  for (const [i, word] of words.entries()) view.setUint32(4 * i, word, true);
  return bytes;
}

/** The last compression of a node. */
function lastOf(node: TreeNode, mode: Blake3Mode): Pending {
  const { key, flags } = mode;
  const keyWords = blockWords(key, 0, 32).subarray(0, 8);
  if (node.type === 'parent') {
    const words = new Uint32Array(16);
    words.set(blockWords(node.left, 0, 32).subarray(0, 8));
    words.set(blockWords(node.right, 0, 32).subarray(0, 8), 8);
    return { chaining: keyWords, words, counter: 0, blockLength: BLOCK_BYTES, flags: flags | PARENT };
  }
  const { bytes, counter } = node;
  if (bytes.length > LEAF_BYTES) {
    // The left part is the largest complete subtree that leaves something for the right one.
    let left = LEAF_BYTES;
    while (2 * left < bytes.length) left *= 2;
    const span = (part: Uint8Array, first: number) =>
      scalarCore.value({ type: 'span', bytes: part, counter: first }, mode);
    return lastOf(
      {
        type: 'parent',
        left: span(bytes.subarray(0, left), counter),
        right: span(bytes.subarray(left), counter + left / LEAF_BYTES),
      },
      mode,
    );
  }
  let chaining = keyWords;
  for (let at = 0; ; at += BLOCK_BYTES) {
    const end = Math.min(bytes.length, at + BLOCK_BYTES);
    const place = (at === 0 ? LEAF_START : 0) | (end === bytes.length ? LEAF_END : 0);
    const block = { chaining, words: blockWords(bytes, at, end), counter, blockLength: end - at, flags: flags | place };
    if (end === bytes.length) return block;
    chaining = compress(block).subarray(0, 8);
  }
}

export const scalarCore: Blake3Core = {
  maxLeaves: 4,
  value: (node, mode) => wordsToBytes(compress(lastOf(node, mode)).subarray(0, 8)),

  digest(root, mode, outputBytes) {
    const last = lastOf(root, mode);
    const bytes = new Uint8Array(outputBytes);
    for (let at = 0; at < outputBytes; at += BLOCK_BYTES) {
      const block = wordsToBytes(compress({ ...last, counter: at / BLOCK_BYTES, flags: last.flags | ROOT }));
      bytes.set(block.subarray(0, outputBytes - at), at);
    }
    return bytes;
  },
};

/** BLAKE3 in pieces. @throws RangeError for a key, a context or a length that cannot be. */
export function createBlake3Scalar(options?: Blake3Options): Blake3Stream {
  return createBlake3Stream(scalarCore, options);
}

/** BLAKE3 of `data`. @throws RangeError for a key, a context or a length that cannot be. */
export function blake3Scalar(data: Uint8Array, options?: Blake3Options): Uint8Array<ArrayBuffer> {
  return blake3Whole(scalarCore, data, options);
}
