import { KIB } from '@decant/core';

import { BLOCK_BYTES, LEAF_BYTES } from '../blake3-constants.ts';
import type { Blake3Core, Blake3Mode, TreeNode } from '../blake3-tree.ts';
import type { Kernel } from './kernel.ts';
import { VALUE_BYTES } from './memory-map.ts';

/**
 * Input of one call. Bytes from outside are copied in through this window, which stays in the processor's second
 * cache; a larger one makes the copy slower than it saves calls.
 */
export const WINDOW_BYTES = 128 * KIB;

export interface KernelCore extends Blake3Core {
  /** The digest of at most `WINDOW_BYTES` in one call. */
  hash(data: Uint8Array, mode: Blake3Mode, outputBytes: number): Uint8Array<ArrayBuffer>;
}

/** BLAKE3's tree on a kernel with at least `WINDOW_BYTES` of input. */
export function createKernelCore(kernel: Kernel): KernelCore {
  const { functions, input, out, block } = kernel;

  const enter = (node: TreeNode, mode: Blake3Mode): number => {
    kernel.use(mode);
    if (node.type === 'leaf') {
      input.set(node.bytes);
      functions.leaf(node.bytes.length, node.counter, high(node.counter), mode.flags);
      return node.counter;
    }
    block.set(node.left);
    block.set(node.right, VALUE_BYTES);
    functions.parent(mode.flags);
    return 0;
  };

  /** OUT has the first 64 bytes of the root's output; the rest is computed. */
  const take = (outputBytes: number): Uint8Array<ArrayBuffer> => {
    if (outputBytes <= BLOCK_BYTES) return out.slice(0, outputBytes);
    const bytes = new Uint8Array(outputBytes);
    bytes.set(out);
    for (let at = BLOCK_BYTES; at < outputBytes; at += BLOCK_BYTES) {
      functions.output(at / BLOCK_BYTES, 0);
      bytes.set(out.subarray(0, outputBytes - at), at);
    }
    return bytes;
  };

  return {
    maxLeaves: WINDOW_BYTES / LEAF_BYTES,

    hash(data, mode, outputBytes) {
      kernel.use(mode);
      input.set(data);
      functions.hash(data.length, mode.flags);
      return take(outputBytes);
    },

    subtree(bytes, counter, mode) {
      kernel.use(mode);
      input.set(bytes);
      functions.subtree(bytes.length / LEAF_BYTES, counter, high(counter), mode.flags);
      return out.slice(0, VALUE_BYTES);
    },

    value(node, mode) {
      const counter = enter(node, mode);
      functions.value(counter, high(counter));
      return out.slice(0, VALUE_BYTES);
    },

    digest(root, mode, outputBytes) {
      enter(root, mode);
      functions.output(0, 0);
      return take(outputBytes);
    },
  };
}

/** The upper 32 bits of a counter; WebAssembly takes the lower ones of what it is given. */
function high(counter: number): number {
  return Math.floor(counter / 2 ** 32);
}
