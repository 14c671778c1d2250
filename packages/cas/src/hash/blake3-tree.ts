import {
  DERIVE_KEY_CONTEXT,
  DERIVE_KEY_MATERIAL,
  INITIAL_VALUE,
  KEYED_HASH,
  KEY_BYTES,
  LEAF_BYTES,
} from './blake3-constants.ts';
import type { Blake3Options, IncrementalHash } from './hash-provider.ts';

/** A mode of BLAKE3 ready to use: what stands for the initial value, and the flags every compression has. */
export interface Blake3Mode {
  /** 32 bytes: eight little-endian words. */
  readonly key: Uint8Array;
  readonly flags: number;
}

/** A node of the tree that is not compressed yet, because only the last one, the root, is compressed as root. */
export type TreeNode =
  /**
   * The root of a subtree: leaves from number `counter` on, at most `maxLeaves` of them, the last of which may be short. As
   * many as a power of two that divides `counter`, or fewer at the end of the input.
   */
  | { readonly type: 'span'; readonly bytes: Uint8Array; readonly counter: number }
  | { readonly type: 'parent'; readonly left: Uint8Array; readonly right: Uint8Array };

/** Computes values of the tree; what {@link Blake3Stream} builds on. Implemented by the SIMD kernel and in plain code. */
export interface Blake3Core {
  /** Most leaves of one span: a power of two, 4 or more. */
  readonly maxLeaves: number;
  /** The chaining value of a node that is not the root. */
  value(node: TreeNode, mode: Blake3Mode): Uint8Array;
  /** The first bytes of the output of the root. */
  digest(root: TreeNode, mode: Blake3Mode, outputBytes: number): Uint8Array<ArrayBuffer>;
}

export const PLAIN_MODE: Blake3Mode = { key: new Uint8Array(Uint32Array.from(INITIAL_VALUE).buffer), flags: 0 };

/** More output than this is refused. */
export const MAX_OUTPUT_BYTES = 2 ** 24;

/** @throws RangeError for a key that is not 32 bytes long, for a key and a context, and for a length out of bounds. */
export function blake3Mode(core: Blake3Core, options: Blake3Options): Blake3Mode {
  const { key, context } = options;
  if (key !== undefined) {
    requireBytes(key);
    if (key.length !== KEY_BYTES) throw new RangeError('a BLAKE3 key has 32 bytes');
    if (context !== undefined) throw new RangeError('BLAKE3 takes a key or a context, not both');
    return { key: key.slice(), flags: KEYED_HASH };
  }
  if (context === undefined) return PLAIN_MODE;
  const contextKey = new Blake3Stream(core, { key: PLAIN_MODE.key, flags: DERIVE_KEY_CONTEXT });
  return { key: contextKey.whole(new TextEncoder().encode(context)), flags: DERIVE_KEY_MATERIAL };
}

/** The output length of the options, 32 unless told. @throws RangeError when it is not from 1 to 2^24. */
export function blake3OutputBytes({ outputBytes = 32 }: Blake3Options): number {
  if (Number.isInteger(outputBytes) && outputBytes >= 1 && outputBytes <= MAX_OUTPUT_BYTES) return outputBytes;
  throw new RangeError(`BLAKE3 gives 1 to ${MAX_OUTPUT_BYTES} bytes here, not ${outputBytes}`);
}

/** Text, arrays and wider elements would give a digest of something else without a word. @throws TypeError. */
export function requireBytes(bytes: Uint8Array): void {
  if (!ArrayBuffer.isView(bytes) || bytes.BYTES_PER_ELEMENT !== 1)
    throw new TypeError('only bytes are hashed, in a Uint8Array');
}

/** BLAKE3 of `data`. @throws RangeError for a key, a context or a length that cannot be; TypeError for what is no bytes. */
export function blake3Whole(core: Blake3Core, data: Uint8Array, options?: Blake3Options): Uint8Array<ArrayBuffer> {
  requireBytes(data);
  if (options === undefined && data.length <= core.maxLeaves * LEAF_BYTES) {
    return core.digest({ type: 'span', bytes: data, counter: 0 }, PLAIN_MODE, 32);
  }
  return createBlake3Stream(core, options).whole(data);
}

/** BLAKE3 in pieces. @throws RangeError for a key, a context or a length that cannot be. */
export function createBlake3Stream(core: Blake3Core, options: Blake3Options = {}): Blake3Stream {
  return new Blake3Stream(core, blake3Mode(core, options), blake3OutputBytes(options));
}

const TAIL_LEAVES = 4;
const TAIL_BYTES = TAIL_LEAVES * LEAF_BYTES;

/**
 * BLAKE3 over input in pieces of any length, after section 5.1.2 of the paper: complete subtrees become values on
 * a stack, which holds one for each bit that is set in the number of leaves. Two values are merged only when more
 * input is there, so that the last merge can be the root. Holds at most 4 KiB of input.
 */
export class Blake3Stream implements IncrementalHash {
  readonly #core: Blake3Core;
  readonly #mode: Blake3Mode;
  readonly #outputBytes: number;
  /** Made when it is needed: whole digests never do. */
  #tail: Uint8Array | undefined;
  #tailBytes = 0;
  readonly #stack: Uint8Array[] = [];
  /** Leaves that the stack stands for. */
  #leaves = 0;
  #done = false;

  constructor(core: Blake3Core, mode: Blake3Mode, outputBytes = 32) {
    this.#core = core;
    this.#mode = mode;
    this.#outputBytes = outputBytes;
  }

  update(bytes: Uint8Array): void {
    if (this.#done) throw new Error('the digest has been taken');
    requireBytes(bytes);
    let at = 0;
    if (this.#tailBytes > 0) {
      at = this.#keep(bytes, 0);
      // Without more input the last leaf may be the root or the end of it.
      if (at === bytes.length) return;
      this.#push(this.#tail!, TAIL_LEAVES);
      this.#tailBytes = 0;
    }
    while (bytes.length - at > TAIL_BYTES) {
      // Something always stays for the tail, hence the 1.
      const leaves = this.#subtreeLeaves(Math.floor((bytes.length - at - 1) / LEAF_BYTES));
      this.#push(bytes.subarray(at, at + leaves * LEAF_BYTES), leaves);
      at += leaves * LEAF_BYTES;
    }
    this.#keep(bytes, at);
  }

  digest(): Uint8Array<ArrayBuffer> {
    if (this.#done) throw new Error('the digest has been taken');
    this.#done = true;
    // Only groups of four leaves or more have been pushed, so what is left is a subtree.
    return this.#finish(this.#tail?.subarray(0, this.#tailBytes) ?? new Uint8Array(0));
  }

  /** The digest of `bytes`, in a stream that has had no other input: fewer and larger subtrees than by `update`. */
  whole(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    const { maxLeaves } = this.#core;
    let at = 0;
    for (; bytes.length - at > maxLeaves * LEAF_BYTES; at += maxLeaves * LEAF_BYTES) {
      this.#push(bytes.subarray(at, at + maxLeaves * LEAF_BYTES), maxLeaves);
    }
    this.#done = true;
    return this.#finish(bytes.subarray(at));
  }

  #finish(last: Uint8Array): Uint8Array<ArrayBuffer> {
    this.#merge();
    let root: TreeNode = { type: 'span', bytes: last, counter: this.#leaves };
    for (let left = this.#stack.pop(); left !== undefined; left = this.#stack.pop()) {
      root = { type: 'parent', left, right: this.#core.value(root, this.#mode) };
    }
    return this.#core.digest(root, this.#mode, this.#outputBytes);
  }

  /** Takes what fits into the tail from `at` on; returns where it stopped. */
  #keep(bytes: Uint8Array, at: number): number {
    const end = Math.min(bytes.length, at + TAIL_BYTES - this.#tailBytes);
    this.#tail ??= new Uint8Array(TAIL_BYTES);
    this.#tail.set(bytes.subarray(at, end), this.#tailBytes);
    this.#tailBytes += end - at;
    return end;
  }

  /** The largest complete subtree that may come next: a power of two that divides the number of leaves before it. */
  #subtreeLeaves(available: number): number {
    let leaves = 1;
    while (2 * leaves <= Math.min(available, this.#core.maxLeaves) && this.#leaves % (2 * leaves) === 0) leaves *= 2;
    return leaves;
  }

  #push(bytes: Uint8Array, leaves: number): void {
    this.#merge();
    this.#stack.push(this.#core.value({ type: 'span', bytes, counter: this.#leaves }, this.#mode));
    this.#leaves += leaves;
  }

  /** Merges from the top until the stack has one value for each bit of the number of leaves. */
  #merge(): void {
    let wanted = 0;
    for (let rest = this.#leaves; rest > 0; rest = Math.floor(rest / 2)) wanted += rest % 2;
    while (this.#stack.length > wanted) {
      const right = this.#stack.pop()!;
      const left = this.#stack.pop()!;
      this.#stack.push(this.#core.value({ type: 'parent', left, right }, this.#mode));
    }
  }
}
