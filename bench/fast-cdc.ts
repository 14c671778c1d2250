/** Random words for each byte, from the 64-bit finalizer of MurmurHash3's relatives, 32 bits kept. */
const GEAR = Uint32Array.from({ length: 256 }, (_, byte) => {
  let word = Math.imul(byte + 1, 0x9e3779b1);
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return word ^ (word >>> 16);
});

const MIN = 16 * 1024;
const AVERAGE = 64 * 1024;
const MAX = 256 * 1024;
/** Two bits more before the average, two fewer after it. */
const STRICT = 0xffffc000;
const LOOSE = 0xfffc0000;

/**
 * The end of the chunk that begins at `start`: FastCDC (Xia et al., USENIX ATC 2016) with normalised chunking and 64 KiB
 * chunks on average, as a plain loop: what a program in JavaScript would do without anything of ours.
 */
export function fastCdcEnd(bytes: Uint8Array, start: number): number {
  const end = Math.min(bytes.length, start + MAX);
  const normal = Math.min(end, start + AVERAGE);
  let hash = 0;
  let at = Math.min(end, start + MIN);
  for (; at < normal; at++) {
    hash = ((hash << 1) + GEAR[bytes[at]!]!) | 0;
    if ((hash & STRICT) === 0) return at + 1;
  }
  for (; at < end; at++) {
    hash = ((hash << 1) + GEAR[bytes[at]!]!) | 0;
    if ((hash & LOOSE) === 0) return at + 1;
  }
  return end;
}
