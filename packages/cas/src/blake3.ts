/**
 * BLAKE3 in plain TypeScript, one lane, no memory of its own: all three modes of the specification
 * (O'Connor, Aumasson, Neves, Wilcox-O'Hearn: "BLAKE3, one function, fast everywhere", sections 2.1 to 2.3).
 * About 60 MB/s. It is here for the derive-key mode, which the WebAssembly providers lack, and as their reference.
 */

const OUT_BYTES = 32;
const BLOCK_BYTES = 64;
const CHUNK_BYTES = 1024;

const CHUNK_START = 1 << 0;
const CHUNK_END = 1 << 1;
const PARENT = 1 << 2;
const ROOT = 1 << 3;
const KEYED_HASH = 1 << 4;
const DERIVE_KEY_CONTEXT = 1 << 5;
const DERIVE_KEY_MATERIAL = 1 << 6;

const IV = Uint32Array.of(
  0x6a09e667,
  0xbb67ae85,
  0x3c6ef372,
  0xa54ff53a,
  0x510e527f,
  0x9b05688c,
  0x1f83d9ab,
  0x5be0cd19,
);

/** Which message word each of the seven rounds takes when: table 2 of the specification, applied round by round. */
const SCHEDULE = schedule();

function schedule(): Uint8Array {
  const permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
  const order = new Uint8Array(7 * 16);
  let words = permutation.map((_, i) => i);
  for (let round = 0; round < 7; round++) {
    order.set(words, round * 16);
    words = permutation.map((from) => words[from]!);
  }
  return order;
}

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

/** One compression; the result is the first half of the output, which is all a 32-byte digest needs. */
function compress(
  chaining: Uint32Array,
  words: Uint32Array,
  counter: number,
  blockLength: number,
  flags: number,
): Uint32Array {
  const state = new Uint32Array(16);
  state.set(chaining);
  state.set(IV.subarray(0, 4), 8);
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
    a = (a + b + words[SCHEDULE[2 * step]!]!) | 0;
    d = rotateRight(d ^ a, 16);
    c = (c + d) | 0;
    b = rotateRight(b ^ c, 12);
    a = (a + b + words[SCHEDULE[2 * step + 1]!]!) | 0;
    d = rotateRight(d ^ a, 8);
    c = (c + d) | 0;
    b = rotateRight(b ^ c, 7);
    state[ia] = a;
    state[ib] = b;
    state[ic] = c;
    state[id] = d;
  }
  const output = new Uint32Array(8);
  for (let i = 0; i < 8; i++) output[i] = state[i]! ^ state[i + 8]!;
  return output;
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

/** Chaining value of the 1,024-byte (or last, shorter) chunk of `data` with this index; `extra` is ROOT for a lone chunk. */
function chunkValue(data: Uint8Array, index: number, key: Uint32Array, flags: number, extra: number): Uint32Array {
  const start = index * CHUNK_BYTES;
  const end = Math.min(data.length, start + CHUNK_BYTES);
  let value = key;
  let at = start;
  do {
    const blockEnd = Math.min(end, at + BLOCK_BYTES);
    const place = (at === start ? CHUNK_START : 0) | (blockEnd === end ? CHUNK_END | extra : 0);
    value = compress(value, blockWords(data, at, blockEnd), index, blockEnd - at, flags | place);
    at = blockEnd;
  } while (at < end);
  return value;
}

function parentValue(left: Uint32Array, right: Uint32Array, key: Uint32Array, flags: number): Uint32Array {
  const words = new Uint32Array(16);
  words.set(left);
  words.set(right, 8);
  return compress(key, words, 0, BLOCK_BYTES, flags | PARENT);
}

function hashWith(data: Uint8Array, key: Uint32Array, flags: number): Uint8Array<ArrayBuffer> {
  const chunks = Math.max(1, Math.ceil(data.length / CHUNK_BYTES));
  if (chunks === 1) return wordsToBytes(chunkValue(data, 0, key, flags, ROOT));
  // Left subtrees are complete, so a stack holds one value per bit that is set in the number of chunks so far.
  const stack: Uint32Array[] = [];
  for (let index = 0; index < chunks - 1; index++) {
    let value = chunkValue(data, index, key, flags, 0);
    for (let total = index + 1; total % 2 === 0; total /= 2) value = parentValue(stack.pop()!, value, key, flags);
    stack.push(value);
  }
  let value = chunkValue(data, chunks - 1, key, flags, 0);
  while (stack.length > 0) {
    const left = stack.pop()!;
    value = parentValue(left, value, key, stack.length === 0 ? flags | ROOT : flags);
  }
  return wordsToBytes(value);
}

function wordsToBytes(words: Uint32Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(OUT_BYTES);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 8; i++) view.setUint32(4 * i, words[i]!, true);
  return bytes;
}

/** BLAKE3-256 of `data`: 32 bytes. */
export function blake3Scalar(data: Uint8Array): Uint8Array<ArrayBuffer> {
  return hashWith(data, IV, 0);
}

/** BLAKE3-256 of `data` under a 32-byte key. @throws RangeError for a key of another length. */
export function blake3KeyedScalar(key: Uint8Array, data: Uint8Array): Uint8Array<ArrayBuffer> {
  if (key.length !== OUT_BYTES) throw new RangeError('a BLAKE3 key has 32 bytes');
  return hashWith(data, blockWords(key, 0, OUT_BYTES).slice(0, 8), KEYED_HASH);
}

/** BLAKE3 in derive-key mode: 32 bytes from a hard-coded, globally unique `context` and any `material`. */
export function blake3DeriveKeyScalar(context: string, material: Uint8Array): Uint8Array<ArrayBuffer> {
  const contextKey = hashWith(new TextEncoder().encode(context), IV, DERIVE_KEY_CONTEXT);
  return hashWith(material, blockWords(contextKey, 0, OUT_BYTES).slice(0, 8), DERIVE_KEY_MATERIAL);
}
