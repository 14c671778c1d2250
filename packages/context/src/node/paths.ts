import { sep } from 'node:path';

import { bytesOf, isAscii, type ByteString } from '../byte-string.ts';

/** The path of something below a directory, in the form that node:fs needs: bytes where text could not name it. */
export function pathBelow(directory: string, path: ByteString): string | Buffer {
  if (isAscii(path)) return path === '' ? directory : `${withSeparator(directory)}${path}`;
  return Buffer.concat([Buffer.from(withSeparator(directory)), bytesOf(path)]);
}

function withSeparator(directory: string): string {
  return directory.endsWith(sep) || directory.endsWith('/') ? directory : `${directory}/`;
}
