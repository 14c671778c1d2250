import { DecantError, quote } from '@decant/core';

/** Most bytes of an object key. */
export const MAX_KEY_BYTES = 1024;

/** Why this is not an object key, as the end of a sentence; undefined when it is one. */
export function faultOfKey(key: string): string | undefined {
  if (key === '') return 'it is empty';
  if (key.length > MAX_KEY_BYTES || Buffer.byteLength(key) > MAX_KEY_BYTES) return `it has over ${MAX_KEY_BYTES} bytes`;
  if (!key.isWellFormed()) return 'it is not valid Unicode';
  // oxlint-disable-next-line no-control-regex -- they are what is refused
  if (/[\u0000-\u001f\u007f]/.test(key)) return 'it has a control character';
  if (key.startsWith('/')) return 'it starts with a slash';
  for (const component of key.split('/')) {
    if (component === '') return 'it has an empty component';
    if (component === '.' || component === '..') return `it has the component ${quote(component)}`;
  }
  return undefined;
}

/** Refuses what is not an object key. @throws OBJECT_KEY_INVALID. */
export function checkKey(key: string): void {
  const fault = faultOfKey(key);
  if (fault !== undefined) {
    throw new DecantError('OBJECT_KEY_INVALID', `The object key ${quote(key)} is refused: ${fault}.`);
  }
}

/** Percent-encodes all but the unreserved characters of RFC 3986, as SigV4 does. */
export function encodeRfc3986(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** The key as the end of a URL's path: each component encoded, slashes kept. */
export function encodeKey(key: string): string {
  return key.split('/').map(encodeRfc3986).join('/');
}
