import { KIB } from '@decant/core';

import { BLOCK_BYTES, LEAF_BYTES } from '../hash/blake3-constants.ts';
import type { Blake3Core, Blake3Mode, TreeNode } from '../hash/blake3-tree.ts';
import type { Kernel } from './kernel.ts';
import { VALUE_BYTES } from './memory-map.ts';

/**
 * Input of one call. Bytes from outside are copied in through this window, which stays in the processor's second
 * cache; larger ones lose more by the copy than they save in calls.
 */
export const WINDOW_BYTES = 256 * KIB;

/** BLAKE3's tree on a kernel with at least `WINDOW_BYTES` of input. */
export function createKernelCore(kernel: Kernel): Blake3Core {
  const { functions, input, out, block } = kernel;

  /** Makes the node the kernel's; returns the counter of its compression when it is not the root. */
  const enter = (node: TreeNode, mode: Blake3Mode): number => {
    kernel.use(mode);
    if (node.type === 'span') {
      const { bytes, counter } = node;
      input.set(bytes);
      functions.tree(bytes.length, counter, high(counter), mode.flags);
      return bytes.length > LEAF_BYTES ? 0 : counter;
    }
    block.set(node.left);
    block.set(node.right, VALUE_BYTES);
    functions.parent(mode.flags);
    return 0;
  };

  return {
    maxLeaves: WINDOW_BYTES / LEAF_BYTES,

    value(node, mode) {
      const counter = enter(node, mode);
      functions.value(counter, high(counter));
      return out.slice(0, VALUE_BYTES);
    },

    digest(root, mode, outputBytes) {
      enter(root, mode);
      functions.output(0, 0);
      if (outputBytes <= BLOCK_BYTES) return out.slice(0, outputBytes);
      const bytes = new Uint8Array(outputBytes);
      bytes.set(out);
      for (let at = BLOCK_BYTES; at < outputBytes; at += BLOCK_BYTES) {
        functions.output(at / BLOCK_BYTES, 0);
        bytes.set(out.subarray(0, outputBytes - at), at);
      }
      return bytes;
    },
  };
}

/** The upper 32 bits of a counter; WebAssembly takes the lower ones of what it is given. */
function high(counter: number): number {
  return Math.floor(counter / 2 ** 32);
}
