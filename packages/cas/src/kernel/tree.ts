import { BLOCK_BYTES, LEAF_BYTES, LEAF_END, LEAF_START, PARENT, ROOT } from '../hash/blake3-constants.ts';
import type { Callable, Effect, FunctionWriter, I32, ModuleWriter } from './assembler.ts';
import { i32, memory, v128 } from './instructions.ts';
import { INPUT, KEY, NODE, NODE_BLOCK, NODE_FLAGS, NODE_LENGTH, OUT, VALUES, VALUE_BYTES } from './memory-map.ts';

const BASE = i32.const(0);
const ZERO = BASE;
const ONE = i32.const(1);
const LEAF_BLOCKS = i32.const(LEAF_BYTES / BLOCK_BYTES);

/** What the page functions need of the tree. */
export interface TreeFunctions {
  /** (count, flags): VALUES become two, whose parent is left in NODE; `count` is 2 or more. */
  readonly reduce: Callable<'none'>;
  /** (counterLow, counterHigh): block `counter` of the digest, from NODE as the root, to OUT. */
  readonly output: Callable<'none'>;
}

/**
 * BLAKE3's tree over what lies at INPUT, in the mode of the flags and of the key at KEY (section 2.1 of the paper). Exported:
 *
 *     tree(length, counterLow, High, flags)        NODE: the root of the subtree over `length` bytes, at most 1 MiB; their
 *                                                  first leaf has that counter, and the others do not carry out of Low
 *     parent(flags)                                NODE: the parent of the two values in its block
 *     value(counterLow, High)                      OUT: NODE's chaining value
 *     output(counterLow, High)                     OUT: 64 bytes of the digest, when NODE is the root
 */
export function defineTree(module: ModuleWriter, lanes: Callable<'none'>, compress: Callable<'none'>): TreeFunctions {
  const leaves = defineLeaves(module, lanes);
  const reduce = defineReduce(module, lanes);

  module.define('parent', { parameters: 1, result: 'none', exported: true }, (f, flags) => {
    copyValue(f, i32.const(KEY), i32.const(NODE));
    setNode(f, i32.const(BLOCK_BYTES), i32.or(flags, i32.const(PARENT)));
  });

  const compressNode = (counterLow: I32, counterHigh: I32, flags = ZERO): Effect =>
    compress(counterLow, counterHigh, i32.load(BASE, NODE_LENGTH), i32.or(i32.load(BASE, NODE_FLAGS), flags));
  const value = module.define('value', { parameters: 2, result: 'none', exported: true }, (f, low, high) =>
    f.run(compressNode(low, high)),
  );
  const output = module.define('output', { parameters: 2, result: 'none', exported: true }, (f, low, high) =>
    f.run(compressNode(low, high, i32.const(ROOT))),
  );

  // leafAt(input, length, counterLow, counterHigh, flags): NODE becomes the last block of a leaf.
  const leafAt = module.define(
    'leafAt',
    { parameters: 5, result: 'none', exported: false },
    (f, input, length, low, high, flags) => {
      const place = f.local('i32');
      f.set(place, i32.const(LEAF_START));
      copyValue(f, i32.const(KEY), i32.const(NODE));
      f.while(i32.gtU(length, i32.const(BLOCK_BYTES)), () => {
        for (let at = 0; at < BLOCK_BYTES; at += 16) f.run(v128.store(BASE, NODE_BLOCK + at, v128.load(input, at)));
        f.run(compress(low, high, i32.const(BLOCK_BYTES), i32.or(flags, place)));
        copyValue(f, i32.const(OUT), i32.const(NODE));
        f.set(place, ZERO);
        f.set(input, i32.add(input, i32.const(BLOCK_BYTES)));
        f.set(length, i32.sub(length, i32.const(BLOCK_BYTES)));
      });
      f.run(memory.fill(i32.const(NODE_BLOCK), ZERO, i32.const(BLOCK_BYTES)));
      f.run(memory.copy(i32.const(NODE_BLOCK), input, length));
      setNode(f, length, i32.or(flags, i32.or(place, i32.const(LEAF_END))));
    },
  );

  module.define('tree', { parameters: 4, result: 'none', exported: true }, (f, length, low, high, flags) => {
    const full = f.local('i32');
    const rest = f.local('i32');
    f.if(
      i32.gtU(length, i32.const(LEAF_BYTES)),
      () => {
        f.set(full, i32.shrU(length, i32.const(10)));
        f.set(rest, i32.and(length, i32.const(LEAF_BYTES - 1)));
        f.run(leaves(i32.const(INPUT), full, low, high, flags));
        f.if(rest, () => {
          const counter = i32.add(low, full);
          f.run(leafAt(i32.add(i32.const(INPUT), i32.shl(full, i32.const(10))), rest, counter, high, flags));
          f.run(value(counter, high));
          copyValue(f, i32.const(OUT), valueAt(full));
          f.set(full, i32.add(full, ONE));
        });
        f.run(reduce(full, flags));
      },
      () => f.run(leafAt(i32.const(INPUT), length, low, high, flags)),
    );
  });

  return { reduce, output };
}

/** leaves(input, count, counterLow, counterHigh, flags): the values of full leaves to VALUES, four at a time. */
function defineLeaves(module: ModuleWriter, lanes: Callable<'none'>): Callable<'none'> {
  return module.define(
    'leaves',
    { parameters: 5, result: 'none', exported: false },
    (f, input, count, low, high, flags) => {
      const done = f.local('i32');
      f.while(i32.ltU(done, count), () => {
        f.run(
          lanes(
            i32.add(input, i32.shl(done, i32.const(10))),
            i32.const(LEAF_BYTES),
            LEAF_BLOCKS,
            i32.add(low, done),
            high,
            ONE,
            flags,
            i32.const(LEAF_START),
            i32.const(LEAF_END),
            valueAt(done),
            ZERO,
          ),
        );
        f.set(done, i32.add(done, i32.const(4)));
      });
    },
  );
}

/**
 * Level by level in place: parents are half as long as their children, so a group of four parents is written where
 * children lie that have been read. The last value of an odd level goes up as it is; it is held in variables,
 * because idle lanes of the last group may write over it.
 */
function defineReduce(module: ModuleWriter, lanes: Callable<'none'>): Callable<'none'> {
  return module.define('reduce', { parameters: 2, result: 'none', exported: false }, (f, count, flags) => {
    const [half, done] = [f.local('i32'), f.local('i32')];
    const [lastLow, lastHigh] = [f.local('v128'), f.local('v128')];
    f.while(i32.gtU(count, i32.const(2)), () => {
      f.set(half, i32.shrU(count, ONE));
      const last = valueAt(i32.sub(count, ONE));
      f.set(lastLow, v128.load(last));
      f.set(lastHigh, v128.load(last, 16));
      f.set(done, ZERO);
      f.while(i32.ltU(done, half), () => {
        const parents = i32.or(flags, i32.const(PARENT));
        const children = valueAt(i32.shl(done, ONE));
        f.run(lanes(children, i32.const(BLOCK_BYTES), ONE, ZERO, ZERO, ZERO, parents, ZERO, ZERO, valueAt(done), ZERO));
        f.set(done, i32.add(done, i32.const(4)));
      });
      f.if(i32.and(count, ONE), () => {
        f.run(v128.store(valueAt(half), 0, lastLow));
        f.run(v128.store(valueAt(half), 16, lastHigh));
      });
      f.set(count, i32.shrU(i32.add(count, ONE), ONE));
    });
    copyValue(f, i32.const(KEY), i32.const(NODE));
    for (let at = 0; at < BLOCK_BYTES; at += 16) f.run(v128.store(BASE, NODE_BLOCK + at, v128.load(BASE, VALUES + at)));
    setNode(f, i32.const(BLOCK_BYTES), i32.or(flags, i32.const(PARENT)));
  });
}

function valueAt(index: I32): I32 {
  return i32.add(i32.const(VALUES), i32.mul(index, i32.const(VALUE_BYTES)));
}

function copyValue(f: FunctionWriter, from: I32, to: I32): void {
  f.run(v128.store(to, 0, v128.load(from)));
  f.run(v128.store(to, 16, v128.load(from, 16)));
}

function setNode(f: FunctionWriter, length: I32, flags: I32): void {
  f.run(i32.store(BASE, NODE_LENGTH, length));
  f.run(i32.store(BASE, NODE_FLAGS, flags));
}
