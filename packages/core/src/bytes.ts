/** The two digits of every byte, as one number in the byte order of this machine. */
const DIGITS = new Uint16Array(
  new TextEncoder().encode(Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0')).join(''))
    .buffer,
);
/** Memory for the digits of as many bytes as a digest has. */
const PART_BYTES = 32;
const part = new Uint16Array(PART_BYTES);
const decoder = new TextDecoder();

/** Lowercase hexadecimal of the bytes. */
export function toHex(bytes: Uint8Array): string {
  // Decoded at once: a string that is joined byte by byte takes twice the time, most of it when it is first used.
  let text = '';
  for (let at = 0; at < bytes.length; at += PART_BYTES) {
    const count = Math.min(PART_BYTES, bytes.length - at);
    for (let i = 0; i < count; i++) part[i] = DIGITS[bytes[at + i]!]!;
    const digits = decoder.decode(count === PART_BYTES ? part : part.subarray(0, count));
    if (count === bytes.length) return digits;
    text += digits;
  }
  return text;
}

/** Bytes of an even-length hexadecimal string; throws a RangeError on anything else. */
export function fromHex(text: string): Uint8Array<ArrayBuffer> {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) throw new RangeError('not a hexadecimal string');
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = 16 * digitOf(text.charCodeAt(2 * i)) + digitOf(text.charCodeAt(2 * i + 1));
  }
  return bytes;
}

/** Value of a hexadecimal digit in ASCII. */
function digitOf(code: number): number {
  return code <= 0x39 ? code - 0x30 : (code | 0x20) - 0x57;
}

/** True when both arrays hold the same bytes. Not constant time: for digests of public data. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** One array from several. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let length = 0;
  for (const part of parts) length += part.length;
  const joined = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** -1, 0 or 1: order by unsigned bytes, shorter first. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference < 0 ? -1 : 1;
  }
  return Math.sign(a.length - b.length);
}

/**
 * Gives the memory of bytes that nobody uses any more back at once, rather than when they are collected: where a gigabyte of
 * chunks goes by, the collector is far behind. They are empty afterwards. Views of a larger buffer are left alone.
 */
export function releaseBytes(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength && !buffer.detached) buffer.transfer(0);
}
