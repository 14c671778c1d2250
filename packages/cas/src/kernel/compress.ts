import { INITIAL_VALUE, SCHEDULE } from '../hash/blake3-constants.ts';
import type { Callable, ModuleWriter, V128 } from './assembler.ts';
import { i32, i32x4, v128 } from './instructions.ts';
import { NODE, NODE_BLOCK, OUT } from './memory-map.ts';
import { quarterRounds } from './rounds.ts';

const BASE = i32.const(0);

/**
 * compress(counterLow, counterHigh, length, flags): one compression of NODE's chaining value and block, all 64 bytes
 * of the result to OUT. The state is a matrix of four rows, a vector each, so that the four columns are mixed at once;
 * for the diagonals the rows are turned against each other. One input alone is twice as fast this way as word by word.
 */
export function defineCompress(module: ModuleWriter): Callable<'none'> {
  return module.define(
    'compress',
    { parameters: 4, result: 'none', exported: false },
    (f, counterLow, counterHigh, length, flags) => {
      const row = () => f.local('v128');
      const [a, b, c, d, spare] = [row(), row(), row(), row(), row()];
      f.set(a, v128.load(BASE, NODE));
      f.set(b, v128.load(BASE, NODE + 16));
      f.set(c, i32x4.const(INITIAL_VALUE[0], INITIAL_VALUE[1], INITIAL_VALUE[2], INITIAL_VALUE[3]));
      f.set(d, i32x4.splat(counterLow));
      for (const [lane, word] of [counterHigh, length, flags].entries()) {
        f.set(d, i32x4.replaceLane(d, lane + 1, word));
      }
      const turn = (by: number) => {
        for (const [turned, lanes] of [
          [b, by],
          [c, 2 * by],
          [d, 3 * by],
        ] as const) {
          f.set(
            turned,
            v128.shuffle32(
              turned,
              turned,
              [0, 1, 2, 3].map((lane) => (lane + lanes) & 3),
            ),
          );
        }
      };
      for (const order of SCHEDULE) {
        quarterRounds(f, [{ a, b, c, d, x: words(order, 0), y: words(order, 1), spare }]);
        turn(1);
        quarterRounds(f, [{ a, b, c, d, x: words(order, 8), y: words(order, 9), spare }]);
        turn(-1);
      }
      f.run(v128.store(BASE, OUT, v128.xor(a, c)));
      f.run(v128.store(BASE, OUT + 16, v128.xor(b, d)));
      f.run(v128.store(BASE, OUT + 32, v128.xor(c, v128.load(BASE, NODE))));
      f.run(v128.store(BASE, OUT + 48, v128.xor(d, v128.load(BASE, NODE + 16))));
    },
  );
}

/** Every second message word of a round, from `from` on: one for each column. */
function words(order: readonly number[], from: number): V128 {
  const address = (column: number) => NODE_BLOCK + 4 * order[from + 2 * column]!;
  let vector = v128.load32Zero(BASE, address(0));
  for (const column of [1, 2, 3]) vector = v128.load32Lane(BASE, address(column), vector, column);
  return vector;
}
