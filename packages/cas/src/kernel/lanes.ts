import { BLOCK_BYTES, INITIAL_VALUE } from '../hash/blake3-constants.ts';
import { PAGE_HASH_MULTIPLIER, PAGE_HASH_SEED } from '../chunk/cut-rules.ts';
import type { Callable, FunctionWriter, Local, ModuleWriter } from './assembler.ts';
import { i32, i32x4, v128 } from './instructions.ts';
import { KEY, SUMS, VALUE_BYTES, WORDS } from './memory-map.ts';
import { sevenRounds } from './rounds.ts';

const ZERO = i32.const(0);

/**
 * lanes(input, stride, blocks, counterLow, counterHigh, counterStep, flags, firstFlag, lastFlag, out, scan):
 * the chaining values of four inputs side by side, 32-bit word by word in the four lanes of a vector.
 *
 * Input j lies at `input + j * stride` and has `blocks` full blocks of 64 bytes; its counter is
 * `counterLow + j * counterStep`, without a carry into `counterHigh` (callers align their groups of four). Every block
 * has `flags`, the first also `firstFlag`, the last also `lastFlag`. Value j is written to `out + 32 * j`; all inputs
 * are read before the first value is written. With `scan` other than 0 the four inputs are a page of 4,096 bytes at
 * `input`, and the sixteen lanes of its page hash go to SUMS: that pass reads the page in order, while BLAKE3 reads four
 * places of it at once, and costs little, because it fills slots that BLAKE3's long chains of dependent steps leave.
 */
export function defineLanes(module: ModuleWriter): Callable<'none'> {
  return module.define(
    'lanes',
    { parameters: 11, result: 'none', exported: false },
    (f, input, stride, blocks, counterLow, counterHigh, counterStep, flags, firstFlag, lastFlag, out, scan) => {
      const value = f.locals('v128', 8);
      const state = f.locals('v128', 16);
      const spares = f.locals('v128', 4);
      const loaded = f.locals('v128', 4);
      const sums = f.locals('v128', 4);
      const counters = f.local('v128');
      const inputs = [input, ...f.locals('i32', 3)];
      const page = f.local('i32');
      const block = f.local('i32');

      for (const [i, word] of value.entries()) f.set(word, v128.load32Splat(i32.const(KEY), 4 * i));
      for (let j = 1; j < 4; j++) f.set(inputs[j]!, i32.add(inputs[j - 1]!, stride));
      const steps = i32x4.mul(i32x4.splat(counterStep), i32x4.const(0, 1, 2, 3));
      f.set(counters, i32x4.add(i32x4.splat(counterLow), steps));
      f.set(page, input);
      for (const [k, sum] of sums.entries()) f.set(sum, pageSeeds(k));

      f.while(i32.ltU(block, blocks), () => {
        for (let quarter = 0; quarter < 4; quarter++) {
          for (let j = 0; j < 4; j++) f.set(loaded[j]!, v128.load(inputs[j]!, 16 * quarter));
          // The rounds' words come from memory: with them in variables the state would not stay in registers.
          const words = state.slice(4 * quarter, 4 * quarter + 4);
          transpose(f, loaded, words, spares);
          for (const [i, word] of words.entries()) {
            f.run(v128.store(i32.const(WORDS), 16 * (4 * quarter + i), word));
          }
        }
        f.if(scan, () => scanFourBlocks(f, page, sums));
        for (const pointer of inputs) f.set(pointer, i32.add(pointer, i32.const(BLOCK_BYTES)));

        for (let i = 0; i < 8; i++) f.set(state[i]!, value[i]!);
        for (let i = 0; i < 4; i++) f.set(state[8 + i]!, i32x4.splat(i32.const(INITIAL_VALUE[i]!)));
        f.set(state[12]!, counters);
        f.set(state[13]!, i32x4.splat(counterHigh));
        f.set(state[14]!, i32x4.splat(i32.const(BLOCK_BYTES)));
        const first = i32.select(block, ZERO, firstFlag);
        const last = i32.select(i32.eq(i32.add(block, i32.const(1)), blocks), lastFlag, ZERO);
        f.set(state[15]!, i32x4.splat(i32.or(flags, i32.or(first, last))));
        f.set(block, i32.add(block, i32.const(1)));
        sevenRounds(f, state, spares, (index) => v128.load(i32.const(WORDS), 16 * index));
        for (let i = 0; i < 8; i++) f.set(value[i]!, v128.xor(state[i]!, state[8 + i]!));
      });

      transpose(f, value.slice(0, 4), state.slice(0, 4), spares);
      transpose(f, value.slice(4), state.slice(4, 8), spares);
      for (let j = 0; j < 4; j++) {
        f.run(v128.store(out, VALUE_BYTES * j, state[j]!));
        f.run(v128.store(out, VALUE_BYTES * j + 16, state[4 + j]!));
      }
      f.if(scan, () => {
        for (const [k, sum] of sums.entries()) f.run(v128.store(i32.const(SUMS), 16 * k, sum));
      });
    },
  );
}

/** Rows to columns: word i of input j becomes lane j of vector i. */
function transpose(
  f: FunctionWriter,
  rows: readonly Local<'v128'>[],
  columns: readonly Local<'v128'>[],
  spares: readonly Local<'v128'>[],
): void {
  const low = [0, 4, 1, 5];
  const high = [2, 6, 3, 7];
  f.set(spares[0]!, v128.shuffle32(rows[0]!, rows[1]!, low));
  f.set(spares[1]!, v128.shuffle32(rows[0]!, rows[1]!, high));
  f.set(spares[2]!, v128.shuffle32(rows[2]!, rows[3]!, low));
  f.set(spares[3]!, v128.shuffle32(rows[2]!, rows[3]!, high));
  f.set(columns[0]!, v128.shuffle32(spares[0]!, spares[2]!, [0, 1, 4, 5]));
  f.set(columns[1]!, v128.shuffle32(spares[0]!, spares[2]!, [2, 3, 6, 7]));
  f.set(columns[2]!, v128.shuffle32(spares[1]!, spares[3]!, [0, 1, 4, 5]));
  f.set(columns[3]!, v128.shuffle32(spares[1]!, spares[3]!, [2, 3, 6, 7]));
}

/** Lanes 4 k to 4 k + 3 of the page hash before the first word; see `pageHash`. */
function pageSeeds(k: number) {
  const seed = (lane: number) => Math.imul(PAGE_HASH_SEED, lane + 1);
  return i32x4.const(seed(4 * k), seed(4 * k + 1), seed(4 * k + 2), seed(4 * k + 3));
}

/** The next 256 bytes of a page into its hash: lane = (lane xor word) × multiplier. */
function scanFourBlocks(f: FunctionWriter, page: Local<'i32'>, sums: readonly Local<'v128'>[]): void {
  const multiplier = i32x4.splat(i32.const(PAGE_HASH_MULTIPLIER));
  for (let i = 0; i < 16; i++) {
    const sum = sums[i % 4]!;
    f.set(sum, i32x4.mul(v128.xor(sum, v128.load(page, 16 * i)), multiplier));
  }
  f.set(page, i32.add(page, i32.const(256)));
}
