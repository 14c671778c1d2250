import { DecantError, quote } from '@decant/core';

const MOST = 100;

/** @throws USAGE for anything but 1 to 100. */
export function pageLimitOf(text: string): number {
  const limit = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > MOST) {
    throw new DecantError('USAGE', `Not a number of things to list: ${quote(text)}.`, {
      hint: `Give --limit a whole number from 1 to ${MOST}.`,
    });
  }
  return limit;
}

/** Pairs as `--tag KEY=VALUE` gives them; of one key the last counts. @throws USAGE */
export function tagsOf(pairs: readonly string[] = []): Record<string, string> {
  const tags: Record<string, string> = {};
  for (const pair of pairs) {
    const [, key, value] = /^([A-Za-z0-9](?:[A-Za-z0-9._-]{0,57}[A-Za-z0-9])?)=(.{0,256})$/.exec(pair) ?? [];
    if (key === undefined || value === undefined) {
      throw new DecantError('USAGE', `Not a tag: ${quote(pair)}.`, {
        hint: 'Write --tag KEY=VALUE; a key has up to 59 letters, digits and . _ -, with a letter or digit at both ends.',
      });
    }
    tags[key] = value;
  }
  return tags;
}

const UNITS: Readonly<Record<string, number>> = { '': 1, s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds of `--ttl`: a number of them, or with a unit (`90m`, `12h`, `7d`). @throws USAGE */
export function ttlOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, digits, unit] = /^(\d{1,10})([smhd]?)$/.exec(text) ?? [];
  const seconds = Number(digits) * (UNITS[unit ?? ''] ?? Number.NaN);
  if (Number.isSafeInteger(seconds) && seconds >= 1) return seconds;
  throw new DecantError('USAGE', `Not a time to live: ${quote(text)}.`, {
    hint: 'Give --ttl seconds, or a number with a unit such as 90m, 12h or 7d.',
  });
}
