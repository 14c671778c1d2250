import { defineTree } from './tree.ts';
import { ModuleWriter } from './assembler.ts';
import { defineCompress } from './compress.ts';
import { defineLanes } from './lanes.ts';
import { INPUT, MEMORY_PAGE_BYTES, SLACK_BYTES } from './memory-map.ts';
import { definePages } from './pages.ts';

/** The bytes of the hashing kernel. The same on every machine: `pnpm run kernel` writes them, a test compares. */
export function buildKernel(): Uint8Array<ArrayBuffer> {
  const module = new ModuleWriter(Math.ceil((INPUT + SLACK_BYTES) / MEMORY_PAGE_BYTES));
  const lanes = defineLanes(module);
  const compress = defineCompress(module);
  const tree = defineTree(module, lanes, compress);
  definePages(module, lanes, tree);
  return module.bytes();
}
