import { runesOf, type ByteString } from '../byte-string.ts';

/*
 * The three string functions of the Go language whose exact behaviour the ignore rules rest on, for Linux:
 * strings.TrimSpace, path/filepath.Clean and the legality check inside path/filepath.Match.
 */

const SPACES = new Set([
  0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x20, 0x85, 0xa0, 0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006,
  0x2007, 0x2008, 0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000,
]);

/** Without the Unicode white space (property White_Space) at both ends; unlike JavaScript's trim, U+FEFF stays. */
export function trimSpace(text: ByteString): ByteString {
  let start = 0;
  let end = text.length;
  for (;;) {
    const length = spaceLength(text.slice(start, Math.min(start + 3, end)) as ByteString);
    if (length === 0) break;
    start += length;
  }
  while (end > start) {
    let length = 0;
    for (const size of [1, 2, 3]) {
      if (end - size < start) break;
      if (spaceLength(text.slice(end - size, end) as ByteString) === size) length = size;
    }
    if (length === 0) break;
    end -= length;
  }
  return text.slice(start, end) as ByteString;
}

/** Bytes of the white space character at the start, or 0. */
function spaceLength(text: ByteString): number {
  const rune = text === '' ? undefined : runesOf(text)[0]!;
  if (rune === undefined || !SPACES.has(rune)) return 0;
  return rune < 0x80 ? 1 : rune < 0x800 ? 2 : 3;
}

/** The shortest path that means the same, by the text alone: no `.`, no doubled `/`, `..` only in front. */
export function cleanPath(path: ByteString): ByteString {
  if (path === '') return '.' as ByteString;
  const rooted = path.startsWith('/');
  const kept: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') kept.push(part);
    else if (kept.length > 0 && kept.at(-1) !== '..') kept.pop();
    else if (!rooted) kept.push(part);
  }
  const joined = kept.join('/');
  return (rooted ? `/${joined}` : joined === '' ? '.' : joined) as ByteString;
}

const NOT_UTF8 = -1;
const [STAR, DOT, MINUS, QUESTION, OPEN, BACKSLASH, CLOSE, CARET] = [
  0x2a, 0x2e, 0x2d, 0x3f, 0x5b, 0x5c, 0x5d, 0x5e,
] as const;

/**
 * Why filepath.Match refuses a pattern that is tried on the name `.`, which is how Moby checks patterns, or
 * undefined. It looks at the part before the first `*` that follows something else, and further only when that part
 * matches the name: `a*[` is legal here, `[` and `.*[` are not.
 */
export function patternFault(pattern: ByteString): string | undefined {
  const runes = runesOf(pattern, NOT_UTF8);
  let at = 0;
  // Once the name is used up one more part is checked; it cannot match nothing, so there is never a third.
  for (let parts = 0; parts < 2; parts++) {
    while (runes[at] === STAR) at += 1;
    const end = partEnd(runes, at);
    const { fault, isDot } = checkPart(runes.slice(at, end));
    if (fault !== undefined || !isDot) return fault;
    at = end;
  }
  return undefined;
}

/** Index of the `*` that ends the part, outside of any `[ ]`. */
function partEnd(runes: readonly number[], start: number): number {
  let inClass = false;
  for (let at = start; at < runes.length; at++) {
    const rune = runes[at];
    if (rune === BACKSLASH) at += 1;
    else if (rune === OPEN) inClass = true;
    else if (rune === CLOSE) inClass = false;
    else if (rune === STAR && !inClass) return at;
  }
  return runes.length;
}

/** Whether a part is legal, and whether it matches just the name `.`. */
function checkPart(runes: readonly number[]): { fault?: string; isDot: boolean } {
  let at = 0;
  let isDot = false;
  while (at < runes.length) {
    const first = at === 0;
    let matches = runes[at] === DOT || runes[at] === QUESTION;
    if (runes[at] === BACKSLASH) {
      if (at + 1 >= runes.length) return { fault: 'it ends with a lone backslash', isDot: false };
      matches = runes[at + 1] === DOT;
      at += 2;
    } else if (runes[at] === OPEN) {
      const read = readClass(runes, at);
      if (typeof read === 'string') return { fault: read, isDot: false };
      matches = read.hasDot;
      at = read.end;
    } else {
      at += 1;
    }
    isDot = first && matches && at === runes.length;
  }
  return { isDot };
}

/** The class that opens at `open`, or what is wrong with it. */
function readClass(runes: readonly number[], open: number): { end: number; hasDot: boolean } | string {
  let at = open + 1;
  const negated = runes[at] === CARET;
  if (negated) at += 1;
  let hasDot = false;
  for (let ranges = 0; ranges === 0 || runes[at] !== CLOSE; ranges++) {
    const low = readMember(runes, at);
    if (typeof low === 'string') return low;
    const high = runes[low.end] === MINUS ? readMember(runes, low.end + 1) : low;
    if (typeof high === 'string') return high;
    if (low.rune <= DOT && DOT <= high.rune) hasDot = true;
    at = high.end;
  }
  return { end: at + 1, hasDot: hasDot !== negated };
}

/** One member of a class; something must follow it. */
function readMember(runes: readonly number[], start: number): { rune: number; end: number } | string {
  const at = runes[start] === BACKSLASH ? start + 1 : start;
  if (runes[start] === CLOSE) return 'a [ ] is empty or has an open range';
  if (runes[start] === MINUS) return 'a [ ] has a - without a start';
  if (runes[at] === NOT_UTF8) return 'a [ ] holds bytes that are not UTF-8';
  return at + 1 < runes.length ? { rune: runes[at]!, end: at + 1 } : 'a [ has no ]';
}
