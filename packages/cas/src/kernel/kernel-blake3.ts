import { PAGE_BYTES } from '@decant/core';

import { LEAF_BYTES } from '../hash/blake3-constants.ts';
import { PLAIN_MODE, blake3Whole, createBlake3Stream } from '../hash/blake3-tree.ts';
import type { Blake3Functions } from '../hash/hash-provider.ts';
import { PAGE_BUFFER_BYTES, type PageHasher } from '../page-hasher.ts';
import { createKernelCore, WINDOW_BYTES } from './kernel-core.ts';
import { compileKernel, openKernel, type Kernel, type KernelModule } from './kernel.ts';
import { INPUT, MAX_LEAVES } from './memory-map.ts';

/** Page hashers that are kept for the next image, 4 MiB each. */
const KEPT_HASHERS = 2;
const MAX_CHUNK_PAGES = (MAX_LEAVES * LEAF_BYTES) / PAGE_BYTES;

/** BLAKE3 by the SIMD kernel. @throws CompileError where WebAssembly lacks SIMD or is forbidden. */
export async function createKernelBlake3(): Promise<Blake3Functions> {
  const module = await compileKernel();
  const core = createKernelCore(await openKernel(module, WINDOW_BYTES));
  const kept: Kernel[] = [];
  return {
    blake3: (data, options) => blake3Whole(core, data, options),
    createBlake3: (options) => createBlake3Stream(core, options),
    createPageHasher: () => openPageHasher(module, kept),
  };
}

async function openPageHasher(module: KernelModule, kept: Kernel[]): Promise<PageHasher> {
  const kernel = kept.pop() ?? (await openKernel(module, PAGE_BUFFER_BYTES));
  kernel.use(PLAIN_MODE);
  const { functions, input, out } = kernel;
  let open = true;
  /** The kernel trusts its arguments and its fixed addresses, so they are checked here, once a call. */
  const checkRange = (at: number, count: number) => {
    if (!open) throw new Error('the page hasher has been disposed of');
    const inBuffer = at >= 0 && at % PAGE_BYTES === 0 && count >= 0 && at + count * PAGE_BYTES <= input.length;
    if (!inBuffer) throw new RangeError('these pages are not in the buffer');
  };
  const checkChunk = (at: number, count: number, have: number) => {
    checkRange(at, count);
    if (have < 0 || have + count > MAX_CHUNK_PAGES) throw new RangeError('a chunk has at most 256 pages');
  };
  return {
    buffer: input,
    zeroPages(at, count) {
      checkRange(at, count);
      return functions.zeroPages(INPUT + at, count);
    },
    dataPages(at, count, have, { minPages, cutBelow }) {
      checkChunk(at, count, have);
      const result = functions.dataPages(INPUT + at, count, have, minPages, cutBelow);
      return { pages: result >> 1, ends: (result & 1) === 1 };
    },
    plainPages(at, count, have) {
      checkChunk(at, count, have);
      functions.plainPages(INPUT + at, count, have);
    },
    endChunk(at, pages) {
      checkChunk(at, pages, 0);
      if (pages === 0) throw new RangeError('a chunk has a page');
      functions.endChunk(pages);
      return out.slice(0, 32);
    },
    [Symbol.dispose]() {
      if (open && kept.length < KEPT_HASHERS) kept.push(kernel);
      open = false;
    },
  };
}
