import { SCHEDULE } from '../hash/blake3-constants.ts';
import type { FunctionWriter, Local, V128 } from './assembler.ts';
import { tee, i32, i32x4, v128 } from './instructions.ts';

/** The operands of one quarter round: a column or diagonal of the state, two message words and a variable to work in. */
export interface Quarter {
  readonly a: Local<'v128'>;
  readonly b: Local<'v128'>;
  readonly c: Local<'v128'>;
  readonly d: Local<'v128'>;
  readonly x: V128;
  readonly y: V128;
  readonly spare: Local<'v128'>;
}

/** Rotations by whole bytes are one byte shuffle; `swizzle` is a little faster than `shuffle` in V8. */
const BY_16 = v128.const([2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13]);
const BY_8 = v128.const([1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12]);

function rotateRight(value: V128, bits: 16 | 12 | 8 | 7, spare: Local<'v128'>): V128 {
  if (bits === 16) return v128.swizzle(value, BY_16);
  if (bits === 8) return v128.swizzle(value, BY_8);
  return v128.or(i32x4.shrU(tee(spare, value), i32.const(bits)), i32x4.shl(spare, i32.const(32 - bits)));
}

/** The quarter round of section 2.2 on four lanes, for all the given quarters in step, so that they overlap. */
export function quarterRounds(f: FunctionWriter, quarters: readonly Quarter[]): void {
  for (const [word, first, second] of [
    ['x', 16, 12],
    ['y', 8, 7],
  ] as const) {
    for (const q of quarters) f.set(q.a, i32x4.add(i32x4.add(q.a, q[word]), q.b));
    for (const q of quarters) f.set(q.d, rotateRight(v128.xor(q.d, q.a), first, q.spare));
    for (const q of quarters) f.set(q.c, i32x4.add(q.c, q.d));
    for (const q of quarters) f.set(q.b, rotateRight(v128.xor(q.b, q.c), second, q.spare));
  }
}

/**
 * Seven rounds over sixteen vectors, one for each word of the state, that is on four states at once. `word` gives
 * the vector of a message word. Quarters go two by two: four at once need more registers than there are.
 */
export function sevenRounds(
  f: FunctionWriter,
  state: readonly Local<'v128'>[],
  spares: readonly Local<'v128'>[],
  word: (index: number) => V128,
): void {
  for (const order of SCHEDULE) {
    for (const diagonal of [0, 1]) {
      const quarters = [0, 1, 2, 3].map((i): Quarter => ({
        a: state[i]!,
        b: state[4 + ((i + diagonal) % 4)]!,
        c: state[8 + ((i + 2 * diagonal) % 4)]!,
        d: state[12 + ((i + 3 * diagonal) % 4)]!,
        x: word(order[8 * diagonal + 2 * i]!),
        y: word(order[8 * diagonal + 2 * i + 1]!),
        spare: spares[i]!,
      }));
      quarterRounds(f, quarters.slice(0, 2));
      quarterRounds(f, quarters.slice(2));
    }
  }
}
