import { BLOCK_BYTES, LEAF_BYTES, LEAF_END, LEAF_START } from '../hash/blake3-constants.ts';
import { PAGE_HASH_FINISH, PAGE_HASH_MULTIPLIER } from '../chunk/cut-rules.ts';
import type { Callable, FunctionWriter, I32, Local, ModuleWriter } from './assembler.ts';
import { i32, v128 } from './instructions.ts';
import { SUMS, VALUES, VALUE_BYTES } from './memory-map.ts';
import type { TreeFunctions } from './tree.ts';

const BASE = i32.const(0);
const ZERO = BASE;
const ONE = i32.const(1);
const PAGE = i32.const(4096);
const LEAVES = 4;

/**
 * An image's pages into the open chunk, whose leaf values grow at VALUES: a page is four leaves, and the number of
 * pages the chunk has before it gives their counters, so nothing is hashed twice although the cut is not known
 * beforehand. Addresses are of pages at INPUT or behind it; a chunk has at most 256 pages. Exported:
 *
 *     zeroPages(at, count)                         how many of the pages are zeros before the first that is not
 *     dataPages(at, count, have, min, cutBelow)    hashes pages up to one of zeros or one that ends the chunk: twice
 *                                                  the pages taken, plus 1 when the last of them ends the chunk
 *     plainPages(at, count, have)                  hashes pages without looking for a cut
 *     endChunk(pages)                              OUT: the digest of the chunk
 *
 * `have` is the number of pages the chunk has; a page whose hash is below `cutBelow` ends it from `min` pages on.
 */
export function definePages(module: ModuleWriter, lanes: Callable<'none'>, tree: TreeFunctions): void {
  const zeroPages = defineZeroPages(module);

  // One page: its four leaves, and with `scan` the lanes of its hash.
  const hashPage = (at: I32, index: I32, scan: I32) =>
    lanes(
      at,
      i32.const(LEAF_BYTES),
      i32.const(LEAF_BYTES / BLOCK_BYTES),
      i32.mul(index, i32.const(LEAVES)),
      ZERO,
      ONE,
      ZERO,
      i32.const(LEAF_START),
      i32.const(LEAF_END),
      i32.add(i32.const(VALUES), i32.mul(index, i32.const(LEAVES * VALUE_BYTES))),
      scan,
    );

  module.define('dataPages', { parameters: 5, result: 'i32', exported: true }, (f, at, count, have, min, cutBelow) => {
    const taken = f.local('i32');
    const hash = f.local('i32');
    f.while(i32.ltU(taken, count), () => {
      f.if(zeroPages(at, ONE), () => f.return(i32.shl(taken, ONE)));
      // Before the minimum no page ends the chunk, whatever its hash.
      f.run(hashPage(at, have, i32.geU(i32.add(have, ONE), min)));
      f.set(at, i32.add(at, PAGE));
      f.set(taken, i32.add(taken, ONE));
      f.set(have, i32.add(have, ONE));
      f.if(i32.geU(have, min), () => {
        finishPageHash(f, hash);
        f.if(i32.ltU(hash, cutBelow), () => f.return(i32.or(i32.shl(taken, ONE), ONE)));
      });
    });
    f.return(i32.shl(taken, ONE));
  });

  module.define('plainPages', { parameters: 3, result: 'none', exported: true }, (f, at, count, have) => {
    f.while(count, () => {
      f.run(hashPage(at, have, ZERO));
      f.set(at, i32.add(at, PAGE));
      f.set(have, i32.add(have, ONE));
      f.set(count, i32.sub(count, ONE));
    });
  });

  module.define('endChunk', { parameters: 1, result: 'none', exported: true }, (f, pages) => {
    f.run(tree.reduce(i32.mul(pages, i32.const(LEAVES)), ZERO));
    f.run(tree.output(ZERO, ZERO));
  });
}

function defineZeroPages(module: ModuleWriter): Callable<'i32'> {
  return module.define('zeroPages', { parameters: 2, result: 'i32', exported: true }, (f, at, count) => {
    const [pages, end] = [f.local('i32'), f.local('i32')];
    const load = (offset: number) => v128.load(at, offset);
    f.while(i32.ltU(pages, count), () => {
      f.set(end, i32.add(at, PAGE));
      f.while(i32.ltU(at, end), () => {
        // Most pages that are not zero say so in their first bytes.
        const any = v128.or(v128.or(load(0), load(16)), v128.or(load(32), load(48)));
        f.if(v128.anyTrue(any), () => f.return(pages));
        f.set(at, i32.add(at, i32.const(BLOCK_BYTES)));
      });
      f.set(pages, i32.add(pages, ONE));
    });
    f.return(pages);
  });
}

/** Folds the sixteen lanes at SUMS in order and finishes them, as `pageHash` does. */
function finishPageHash(f: FunctionWriter, hash: Local<'i32'>): void {
  f.set(hash, ZERO);
  const multiplier = i32.const(PAGE_HASH_MULTIPLIER);
  for (let lane = 0; lane < 16; lane++) {
    const turned = i32.rotl(hash, i32.const(13));
    f.set(hash, i32.mul(i32.xor(turned, i32.load(BASE, SUMS + 4 * lane)), multiplier));
  }
  for (const [shift, factor] of PAGE_HASH_FINISH) {
    f.set(hash, i32.mul(i32.xor(hash, i32.shrU(hash, i32.const(shift))), i32.const(factor)));
  }
  f.set(hash, i32.xor(hash, i32.shrU(hash, i32.const(16))));
}
