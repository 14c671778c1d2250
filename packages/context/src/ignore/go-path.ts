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

/** Why a pattern is not legal for filepath.Match, or undefined when it is. */
export function patternFault(pattern: ByteString): string | undefined {
  const runes = runesOf(pattern, NOT_UTF8);
  let at = 0;
  while (at < runes.length) {
    const rune = runes[at]!;
    if (rune === 0x5c) {
      if (at + 1 >= runes.length) return 'it ends with a lone backslash';
      at += 2;
    } else if (rune === 0x5b) {
      const end = classEnd(runes, at);
      if (typeof end === 'string') return end;
      at = end;
    } else {
      at += 1;
    }
  }
  return undefined;
}

/** Index behind the `]` of the class that opens at `open`, or what is wrong with it. */
function classEnd(runes: readonly number[], open: number): number | string {
  let at = open + 1;
  if (runes[at] === 0x5e) at += 1;
  let ranges = 0;
  for (;;) {
    if (runes[at] === 0x5d && ranges > 0) return at + 1;
    const low = classMember(runes, at);
    if (typeof low === 'string') return low;
    at = low;
    if (runes[at] === 0x2d) {
      const high = classMember(runes, at + 1);
      if (typeof high === 'string') return high;
      at = high;
    }
    ranges += 1;
  }
}

/** Index behind one member of a class; a class that ends with its member has no closing bracket. */
function classMember(runes: readonly number[], start: number): number | string {
  let at = start;
  const unclosed = 'a [ has no ]';
  if (at >= runes.length) return unclosed;
  if (runes[at] === 0x5d) return 'a [ ] is empty or has an open range';
  if (runes[at] === 0x2d) return 'a [ ] has a - without a start';
  if (runes[at] === 0x5c) at += 1;
  if (at >= runes.length) return unclosed;
  if (runes[at] === NOT_UTF8) return 'a [ ] holds bytes that are not UTF-8';
  return at + 1 < runes.length ? at + 1 : unclosed;
}
