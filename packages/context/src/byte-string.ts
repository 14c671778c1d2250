/**
 * Bytes as a string of one character a byte (U+0000 to U+00FF). File names on Linux are bytes, not text;
 * in this form they compare, slice and sort as bytes with the plain string operators.
 */
export type ByteString = string & { readonly __bytes: true };

const encoder = new TextEncoder();
const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const lossyDecoder = new TextDecoder('utf-8', { ignoreBOM: true });
const SLICE = 8192;

/** The bytes of a name: text stands for its UTF-8 form. */
export function toByteString(name: string | Uint8Array): ByteString {
  if (typeof name === 'string') {
    // Most names are ASCII, and ASCII is its own byte string.
    if (isAscii(name)) return name as ByteString;
    return toByteString(encoder.encode(name));
  }
  let text = '';
  for (let at = 0; at < name.length; at += SLICE) text += String.fromCharCode(...name.subarray(at, at + SLICE));
  return text as ByteString;
}

export function bytesOf(name: ByteString): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(name.length);
  for (let at = 0; at < name.length; at++) bytes[at] = name.charCodeAt(at);
  return bytes;
}

/** The name as text; bytes that are not UTF-8 become U+FFFD. */
export function textOf(name: ByteString): string {
  return isAscii(name) ? name : lossyDecoder.decode(bytesOf(name));
}

export function isUtf8(name: ByteString): boolean {
  if (isAscii(name)) return true;
  try {
    strictDecoder.decode(bytesOf(name));
    return true;
  } catch {
    return false;
  }
}

export function isAscii(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (text.charCodeAt(at) > 0x7f) return false;
  return true;
}

const INVALID_RUNE = 0xfffd;

/**
 * The code points of bytes as the Go language reads them: every byte that does not begin a well-formed
 * sequence is one `invalid` (default U+FFFD), also where a browser's decoder would make one of several bytes.
 */
export function runesOf(name: ByteString, invalid: number = INVALID_RUNE): number[] {
  const runes: number[] = [];
  let at = 0;
  while (at < name.length) {
    const length = sequenceLength(name, at);
    if (length === 0) {
      runes.push(invalid);
      at += 1;
      continue;
    }
    let rune = name.charCodeAt(at) & [0, 0x7f, 0x1f, 0x0f, 0x07][length]!;
    for (let i = 1; i < length; i++) rune = (rune << 6) | (name.charCodeAt(at + i) & 0x3f);
    runes.push(rune);
    at += length;
  }
  return runes;
}

/** Bytes of the well-formed UTF-8 sequence at `at`, or 0 (RFC 3629: no overlong forms, no surrogates). */
function sequenceLength(name: ByteString, at: number): number {
  const first = name.charCodeAt(at);
  if (first < 0x80) return 1;
  const length =
    first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
  if (length === 0 || at + length > name.length) return 0;
  const second = name.charCodeAt(at + 1);
  const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  if (second < low || second > high) return 0;
  for (let i = 2; i < length; i++) if ((name.charCodeAt(at + i) & 0xc0) !== 0x80) return 0;
  return length;
}
