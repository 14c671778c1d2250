import { quote } from '@decant/core';

import type { ByteString } from './tree.ts';

/** The bytes of a string that holds one byte per character. */
export function bytesOf(text: ByteString): Uint8Array {
  return Buffer.from(text, 'latin1');
}

export function byteStringOf(bytes: Uint8Array): ByteString {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** A path of byte strings for a message: as UTF-8, quoted, cut short. */
export function showPath(path: ByteString): string {
  return quote(Buffer.from(path === '' ? '/' : path, 'latin1').toString('utf8'));
}
