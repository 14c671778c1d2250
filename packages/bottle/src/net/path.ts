import { refused, type Refusal } from './refusal.ts';

/** A path that is read in one way only: as it is compared with the paths of routes. */
export interface NormalPath {
  readonly type: 'path';
  readonly text: string;
}

/** How often a path may be percent-encoded before what is below it is no longer looked at. */
const MAX_DECODES = 3;

/**
 * The path of a request target without its query, with percent-encoded letters, digits and `-._~` decoded and other escapes in upper case
 * (RFC 3986, 6.2.2).
 *
 * Servers disagree about the rest, so a path is refused in which any of them could see another one: dot segments (also as `..;x`,
 * encoded, or encoded again), encoded slashes, backslashes, control characters, and escapes that are none.
 */
export function normalPath(target: string): NormalPath | Refusal {
  const raw = target.slice(0, target.search(/[?#]|$/));
  if (!raw.startsWith('/')) return refused('bad-path', 'The path does not begin with a slash.');
  if (/%(?![0-9a-fA-F]{2})/.test(raw)) return refused('bad-path', 'The path has a percent sign that begins no escape.');
  let seen = raw;
  for (let times = 0; ; times++) {
    if (/\\|(?![\u0080-\u009f])\p{Cc}/u.test(seen))
      return refused('bad-path', 'The path has a backslash or control character.');
    if (/%2f/i.test(seen)) return refused('bad-path', 'The path has an encoded slash.');
    if (seen.split('/').some((segment) => /^\.\.?(?:;|$)/.test(segment))) {
      return refused('bad-path', 'The path has a segment that leads elsewhere.');
    }
    const next = seen.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
    if (next === seen) break;
    if (times === MAX_DECODES) return refused('bad-path', 'The path is encoded over and over.');
    seen = next;
  }
  const text = raw.replace(/%[0-9a-fA-F]{2}/g, (escape) => {
    const character = String.fromCharCode(parseInt(escape.slice(1), 16));
    return /[A-Za-z0-9._~-]/.test(character) ? character : escape.toUpperCase();
  });
  return { type: 'path', text };
}

/** Whether the path is the prefix or lies below it: `/api` has `/api` and `/api/x`, not `/apix`. */
export function hasPathPrefix(path: string, prefix: string): boolean {
  const base = prefix.endsWith('/') ? prefix.slice(0, -1) : prefix;
  return path === base || path.startsWith(`${base}/`);
}
