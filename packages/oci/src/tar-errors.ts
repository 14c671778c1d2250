import { DecantError } from '@decant/core';

import { limitError } from './limits.ts';
import type { ByteString, TarLimits } from './tar-entry.ts';

/** A byte string for people: read as UTF-8, control characters escaped, cut at 200 characters. */
export function showBytes(name: ByteString): string {
  const text = JSON.stringify(Buffer.from(name, 'latin1').toString('utf8'));
  return text.length > 200 ? `${text.slice(0, 180)}…" (${name.length} bytes)` : text;
}

/** The error of a broken archive: what is wrong, where, and in which entry when its name is known. */
export function tarError(what: string, offset: number, entry?: ByteString): DecantError {
  const where = entry === undefined ? '' : ` (entry ${showBytes(entry)})`;
  return new DecantError('LAYER_INVALID', `The archive is broken at byte ${offset}: ${what}${where}.`, {
    details: { offset, ...(entry === undefined ? {} : { entry: Buffer.from(entry, 'latin1').toString('utf8') }) },
  });
}

export function tarLimitError(
  what: string,
  offset: number,
  limit: { readonly name: keyof TarLimits; readonly value: number },
  entry?: ByteString,
): DecantError {
  const where = entry === undefined ? '' : ` (entry ${showBytes(entry)})`;
  return limitError(`The archive has ${what} at byte ${offset}, the limit is ${limit.value}${where}.`, limit, {
    offset,
    ...(entry === undefined ? {} : { entry: Buffer.from(entry, 'latin1').toString('utf8') }),
  });
}
