import {
  expr,
  signed,
  unsigned,
  type Effect,
  type Expr,
  type I32,
  type Local,
  type V128,
  type ValueType,
} from './assembler.ts';

/** The instructions the kernel uses. Numbers: WebAssembly Core Specification 2.0, section 5.4. */

const binary =
  <A extends ValueType, B extends ValueType, R extends ValueType>(result: R, ...opcode: number[]) =>
  (a: Expr<A>, b: Expr<B>): Expr<R> =>
    expr(result, a.code, b.code, opcode);

/** Vector instructions have a prefix and a LEB128 number (5.4.8). */
const simd = (number: number): number[] => [0xfd, ...unsigned(number)];

/** No alignment promised, and an offset that is added to the address (5.4.6). */
const at = (offset: number): number[] => [0, ...unsigned(offset)];

/** Sets a variable and is its value. */
export function tee<T extends ValueType>(target: Local<T>, value: Expr<T>): Expr<T> {
  return expr(value.type, value.code, 0x22, unsigned(target.index));
}

export const i32 = {
  const: (value: number): I32 => expr('i32', 0x41, signed(value)),
  eqz: (a: I32): I32 => expr('i32', a.code, 0x45),
  ltU: binary<'i32', 'i32', 'i32'>('i32', 0x49),
  gtU: binary<'i32', 'i32', 'i32'>('i32', 0x4b),
  geU: binary<'i32', 'i32', 'i32'>('i32', 0x4f),
  eq: binary<'i32', 'i32', 'i32'>('i32', 0x46),
  add: binary<'i32', 'i32', 'i32'>('i32', 0x6a),
  sub: binary<'i32', 'i32', 'i32'>('i32', 0x6b),
  mul: binary<'i32', 'i32', 'i32'>('i32', 0x6c),
  and: binary<'i32', 'i32', 'i32'>('i32', 0x71),
  or: binary<'i32', 'i32', 'i32'>('i32', 0x72),
  xor: binary<'i32', 'i32', 'i32'>('i32', 0x73),
  shl: binary<'i32', 'i32', 'i32'>('i32', 0x74),
  shrU: binary<'i32', 'i32', 'i32'>('i32', 0x76),
  rotl: binary<'i32', 'i32', 'i32'>('i32', 0x77),
  /** `a` when the condition is not zero, otherwise `b`; both are computed. */
  select: (condition: I32, a: I32, b: I32): I32 => expr('i32', a.code, b.code, condition.code, 0x1b),
  load: (base: I32, offset = 0): I32 => expr('i32', base.code, 0x28, at(offset)),
  store: (base: I32, offset: number, value: I32): Effect => expr('none', base.code, value.code, 0x36, at(offset)),
};

export const v128 = {
  const: (bytes: readonly number[]): V128 => expr('v128', simd(12), bytes),
  load: (base: I32, offset = 0): V128 => expr('v128', base.code, simd(0), at(offset)),
  /** One 32-bit word in all four lanes. */
  load32Splat: (base: I32, offset: number): V128 => expr('v128', base.code, simd(9), at(offset)),
  /** One 32-bit word in lane 0, zeros in the others. */
  load32Zero: (base: I32, offset: number): V128 => expr('v128', base.code, simd(92), at(offset)),
  /** `vector` with one lane read from memory. */
  load32Lane: (base: I32, offset: number, vector: V128, lane: number): V128 =>
    expr('v128', base.code, vector.code, simd(86), at(offset), lane),
  store: (base: I32, offset: number, value: V128): Effect => expr('none', base.code, value.code, simd(11), at(offset)),
  or: binary<'v128', 'v128', 'v128'>('v128', ...simd(80)),
  xor: binary<'v128', 'v128', 'v128'>('v128', ...simd(81)),
  anyTrue: (a: V128): I32 => expr('i32', a.code, simd(83)),
  /** Byte i of the result is byte `indices[i]` of `a`. */
  swizzle: binary<'v128', 'v128', 'v128'>('v128', ...simd(14)),
  /** Lane i of the result is lane `lanes[i]` of the eight of `a` and `b`. */
  shuffle32: (a: V128, b: V128, lanes: readonly number[]): V128 =>
    expr(
      'v128',
      a.code,
      b.code,
      simd(13),
      lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)),
    ),
};

export const i32x4 = {
  const: (...lanes: readonly [number, number, number, number]): V128 =>
    v128.const(lanes.flatMap((lane) => [0, 8, 16, 24].map((bits) => (lane >>> bits) & 255))),
  splat: (a: I32): V128 => expr('v128', a.code, simd(17)),
  replaceLane: (vector: V128, lane: number, value: I32): V128 => expr('v128', vector.code, value.code, simd(28), lane),
  add: binary<'v128', 'v128', 'v128'>('v128', ...simd(174)),
  mul: binary<'v128', 'v128', 'v128'>('v128', ...simd(181)),
  shl: binary<'v128', 'i32', 'v128'>('v128', ...simd(171)),
  shrU: binary<'v128', 'i32', 'v128'>('v128', ...simd(173)),
};

export const memory = {
  /** Copies `length` bytes (5.4.6). */
  copy: (to: I32, from: I32, length: I32): Effect =>
    expr('none', to.code, from.code, length.code, 0xfc, unsigned(10), 0, 0),
  fill: (to: I32, value: I32, length: I32): Effect =>
    expr('none', to.code, value.code, length.code, 0xfc, unsigned(11), 0),
};
