import { DecantError } from '@decant/core';
import { limitError, showBytes } from '@decant/oci';

import type { FlattenLimits } from './flatten-limits.ts';
import type { ByteString } from './tree.ts';

export const MAX_NAME_BYTES = 255;
export const MAX_PATH_BYTES = 4095;

/** Where an entry stands, for errors. */
export interface Place {
  readonly path: ByteString;
  /** Byte offset of its header in the layer. */
  readonly headerOffset: number;
}

/** A hostile or senseless entry. */
export function entryError(place: Place, what: string): DecantError {
  return new DecantError('LAYER_INVALID', `The entry ${showBytes(place.path)} ${what}.`, { details: details(place) });
}

/** An entry over one of the limits. */
export function entryLimitError(
  place: Place,
  what: string,
  limits: FlattenLimits,
  limitName: keyof FlattenLimits,
): DecantError {
  const limit = limits[limitName];
  const message = `The entry ${showBytes(place.path)} ${what}; the limit is ${limit}.`;
  return limitError(message, { name: limitName, value: limit }, details(place));
}

function details(place: Place) {
  return { entry: Buffer.from(place.path, 'latin1').toString('utf8'), offset: place.headerOffset };
}

/**
 * The components of a name from an archive, seen from the root: a leading `/`, empty components and `.` say
 * nothing. The root itself has none.
 * @throws LAYER_INVALID for `..`, a NUL, a name over 255 or a path over 4,095 bytes; LIMIT_EXCEEDED for the depth.
 */
export function componentsOf(path: ByteString, place: Place, limits: FlattenLimits): ByteString[] {
  if (path.includes('\0')) throw entryError(place, 'has a NUL in its name or target');
  // Counting first keeps a name of a megabyte of slashes from becoming a million strings.
  if (path.length > 4 * MAX_PATH_BYTES) throw entryError(place, `has a path of ${path.length} bytes`);
  const components: ByteString[] = [];
  let bytes = 0;
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') throw entryError(place, 'has a path with ".."');
    if (part.length > MAX_NAME_BYTES) throw entryError(place, `has a name of ${part.length} bytes`);
    bytes += part.length + 1;
    components.push(part);
  }
  if (components.length > limits.depth) {
    throw entryLimitError(place, `is ${components.length} levels deep`, limits, 'depth');
  }
  if (bytes - 1 > MAX_PATH_BYTES) throw entryError(place, `has a path of ${bytes - 1} bytes`);
  return components;
}
