import { DecantError, quote } from '@decant/core';

/** Candidates for one name: the name itself, then `-2` to `-100`. */
const MOST_CANDIDATES = 100;

/**
 * A name that engines accept for images and containers: lower case, every run of other characters one dash, none at
 * the ends. @throws NAME_INVALID when nothing is left.
 */
export function slugOf(text: string): string {
  const slug = text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  if (slug !== '') return slug;
  throw new DecantError('NAME_INVALID', `${quote(text)} has no letter or digit to make a name of.`);
}

/** `base`, `base-2`, … `base-100`: whoever looks for a free name and whoever loses a race for one try the same. */
export function* nameCandidates(base: string): Generator<string, void> {
  yield base;
  for (let number = 2; number <= MOST_CANDIDATES; number++) yield `${base}-${number}`;
}
