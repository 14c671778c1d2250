import { join } from 'node:path';

/**
 * Where the file store keeps what:
 *
 *     objects/ns/acme/packs/ab/abcd@      the object `ns/acme/packs/ab/abcd`
 *     uploads/<32 hex>/key                the key an upload is for, as text
 *     uploads/<32 hex>/00001              part 1: its bytes, then 32 bytes of SHA-256 of them
 *     joining/<32 hex>/…                  an upload whose parts are being joined
 *     completed/<32 hex>                  JSON: what a completion asked for and answered, kept for a day
 *     temp/<32 hex>                       bytes on their way in
 *
 * Under `objects`, a component of a key is a name in which every byte other than `a-z 0-9 . _ -` is written %XX
 * (capital letters too, for file systems that fold case). A name ends in `@` when it is an object, so that `a`
 * and `a/b` can both be. A component of 80 bytes or more is cut into folders of 80 bytes each, which end in `+`,
 * since file names are limited to 255 bytes; what is left, 0 to 79 bytes, is its last name (`=` when a folder's
 * is empty).
 */
export const AREAS = ['objects', 'uploads', 'joining', 'completed', 'temp'] as const;
export type Area = (typeof AREAS)[number];

const CUT_BYTES = 80;

/** Path of an object, from the `objects` folder. The key has been checked. */
export function pathOfKey(key: string): string {
  const components = key.split('/');
  const names: string[] = [];
  components.forEach((component, index) => {
    let bytes = Buffer.from(component, 'utf8');
    for (; bytes.length >= CUT_BYTES; bytes = bytes.subarray(CUT_BYTES)) {
      names.push(`${escape(bytes.subarray(0, CUT_BYTES))}+`);
    }
    const name = escape(bytes);
    names.push(index === components.length - 1 ? `${name}@` : name === '' ? '=' : name);
  });
  return join(...names);
}

/** An entry of a folder under `objects`: what it adds to the key, one character a byte. */
export interface KeyEntry {
  readonly kind: 'object' | 'folder';
  /** Of a folder with its slash, when the component ends there. */
  readonly text: string;
}

/** Reads a name under `objects`; undefined when decant did not write it. */
export function parseName(name: string, isFolder: boolean): KeyEntry | undefined {
  const match = /^((?:[a-z0-9._-]|%[0-9A-F]{2})*)([@+=]?)$/.exec(name);
  if (match === null) return undefined;
  const text = match[1]!.replace(/%(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  const mark = match[2]!;
  if (mark === '@') return isFolder ? undefined : { kind: 'object', text };
  if (!isFolder || (mark === '=') !== (text === '')) return undefined;
  return { kind: 'folder', text: mark === '+' ? text : `${text}/` };
}

function escape(bytes: Buffer): string {
  return bytes
    .toString('latin1')
    .replace(/[^a-z0-9._-]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);
}
