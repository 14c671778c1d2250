import type { Random } from './random.ts';

/** Numbers at which parsers have their limits. */
const EDGES: readonly number[] = [
  ...[0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 40, 47, 48, 55, 56, 63, 64, 127, 128, 255, 256, 1023, 1024, 1025],
  ...[4095, 4096, 4097, 65_535, 65_536, 65_537, 2 ** 20, 2 ** 22, 2 ** 22 + 4096, 2 ** 26, 2 ** 26 + 1],
  ...[2 ** 31 - 1, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1],
];

/** Changes bytes, and may return others of another length. */
type Mutator = (bytes: Uint8Array<ArrayBuffer>, random: Random, other: () => Uint8Array) => Uint8Array<ArrayBuffer>;

/** Runs of bytes that are moved or repeated are as long as the records of the formats, or any length. */
function runLength(bytes: Uint8Array, random: Random): number {
  const lengths = [1, 2, 4, 8, 24, 32, 40, 48, 56, 256, 512, random.below(bytes.length + 1)];
  return Math.min(bytes.length, random.pick(lengths));
}

function cutAt(bytes: Uint8Array, at: number, remove: number, insert: Uint8Array): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(bytes.length - remove + insert.length);
  result.set(bytes.subarray(0, at));
  result.set(insert, at);
  result.set(bytes.subarray(at + remove), at + insert.length);
  return result;
}

const MUTATORS: readonly Mutator[] = [
  function flipBit(bytes, random) {
    const at = random.below(bytes.length);
    if (bytes.length > 0) bytes[at] = bytes[at]! ^ (1 << random.below(8));
    return bytes;
  },
  function setByte(bytes, random) {
    if (bytes.length > 0)
      bytes[random.below(bytes.length)] = random.pick([0, 1, 2, 0x7f, 0x80, 0xff, random.below(256)]);
    return bytes;
  },
  function setNumber(bytes, random) {
    const size = random.pick([2, 4, 8]);
    if (bytes.length < size) return bytes;
    const aligned = random.chance(0.8);
    const at = random.below(bytes.length - size + 1) & (aligned ? ~(Math.min(size, 4) - 1) : -1);
    const view = new DataView(bytes.buffer);
    const value = random.chance(0.3) ? random.u32() : random.pick(EDGES);
    if (size === 2) view.setUint16(at, value, true);
    else if (size === 4) view.setUint32(at, value, true);
    else view.setBigUint64(at, BigInt(value) << BigInt(random.chance(0.2) ? random.below(64) : 0), true);
    return bytes;
  },
  function addToNumber(bytes, random) {
    if (bytes.length < 4) return bytes;
    const at = random.below(bytes.length - 3);
    const view = new DataView(bytes.buffer);
    view.setUint32(at, view.getUint32(at, true) + random.pick([-4096, -1, 1, 40, 4096]), true);
    return bytes;
  },
  function truncate(bytes, random) {
    return bytes.slice(
      0,
      random.chance(0.5) ? random.below(bytes.length + 1) : Math.max(0, bytes.length - random.below(64)),
    );
  },
  function extend(bytes, random) {
    const more = random.chance(0.5) ? new Uint8Array(random.below(64)) : random.bytes(random.below(64));
    return cutAt(bytes, bytes.length, 0, more);
  },
  function remove(bytes, random) {
    const length = runLength(bytes, random);
    return cutAt(bytes, random.below(bytes.length - length + 1), length, new Uint8Array(0));
  },
  function repeat(bytes, random) {
    const length = runLength(bytes, random);
    const at = random.below(bytes.length - length + 1);
    return cutAt(bytes, at, 0, bytes.slice(at, at + length));
  },
  function swap(bytes, random) {
    const length = runLength(bytes, random);
    const [a, b] = [random.below(bytes.length - length + 1), random.below(bytes.length - length + 1)];
    const first = bytes.slice(a, a + length);
    bytes.copyWithin(a, b, b + length);
    bytes.set(first, b);
    return bytes;
  },
  function zero(bytes, random) {
    const length = runLength(bytes, random);
    const at = random.below(bytes.length - length + 1);
    bytes.fill(random.chance(0.8) ? 0 : 0xff, at, at + length);
    return bytes;
  },
  function splice(bytes, random, other) {
    const from = other();
    const length = runLength(from, random);
    const start = random.below(from.length - length + 1);
    const piece = from.slice(start, start + length);
    const at = random.below(bytes.length + 1);
    return cutAt(bytes, at, random.chance(0.5) ? Math.min(length, bytes.length - at) : 0, piece);
  },
];

/** A copy with one to `most` changes, small ones far more often. `other` gives another valid input to take pieces from. */
export function mutate(bytes: Uint8Array, random: Random, other: () => Uint8Array, most = 4): Uint8Array<ArrayBuffer> {
  let changed = new Uint8Array(bytes);
  for (let rest = random.between(1, most); rest > 0; rest--) {
    changed = random.pick(MUTATORS)(changed, random, other);
  }
  return changed;
}
