import { DecantError, quote, slug } from '@decant/core';

/** Bottles of one name that may be there at a time: `base`, `base-2` … `base-100`. */
export const SLUG_ATTEMPTS = 100;
/** With `-100` behind it, a base is well below the 63 characters of a host name's label. */
const LONGEST_BASE = 40;
const LONGEST_NAME = 200;

/**
 * The base of a bottle's slugs: lower-case ASCII letters and digits, every run of other characters one dash, none at
 * the ends, 40 characters at most. It is safe as a file name, a host name and an argument.
 * @throws NAME_INVALID when nothing is left, or the name is longer than 200 characters or holds control characters.
 */
export function slugBase(name: string): string {
  const hint = 'Use letters, digits and dashes, for example: reviewer';
  if (name.length > LONGEST_NAME) {
    throw new DecantError('NAME_INVALID', `A bottle's name has ${LONGEST_NAME} characters at most.`, { hint });
  }
  // oxlint-disable-next-line no-control-regex -- these are what must not be there
  if (/[\u0000-\u001f\u007f]/.test(name)) {
    throw new DecantError('NAME_INVALID', `The bottle's name ${quote(name)} holds control characters.`, { hint });
  }
  const base = slug(name).slice(0, LONGEST_BASE).replace(/-+$/, '');
  if (base === '') {
    throw new DecantError('NAME_INVALID', `The bottle's name ${quote(name)} has no letter or digit of ASCII.`, {
      hint,
    });
  }
  return base;
}

/** The slug to try the `attempt`th time, from 1. */
export function slugCandidate(base: string, attempt: number): string {
  return attempt === 1 ? base : `${base}-${attempt}`;
}

/** Whether a text can be a bottle's slug: what people write on a command line, before it becomes part of a path. */
export function isSlug(text: string): boolean {
  return /^[a-z0-9](?:[a-z0-9-]{0,42}[a-z0-9])?$/.test(text);
}
