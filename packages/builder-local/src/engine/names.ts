import { DecantError, quote, slug } from '@decant/core';

/** Candidates for one name: the name itself, then `-2` to `-100`. */
const MOST_CANDIDATES = 100;

/** A name that engines accept for images and containers. @throws NAME_INVALID when nothing of the text is left. */
export function slugOf(text: string): string {
  const name = slug(text);
  if (name !== '') return name;
  throw new DecantError('NAME_INVALID', `${quote(text)} has no letter or digit to make a name of.`);
}

/** `base`, `base-2`, … `base-100`: whoever looks for a free name and whoever loses a race for one try the same. */
export function* nameCandidates(base: string): Generator<string, void> {
  yield base;
  for (let number = 2; number <= MOST_CANDIDATES; number++) yield `${base}-${number}`;
}
