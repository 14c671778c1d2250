import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

import { DecantError, errnoOf, quote } from '@decant/core';

import type { ContextEntry } from '../entry.ts';
import { pathBytesOf } from '../archive/tar-header.ts';
import { changed, checkUnchanged } from './file-stamp.ts';
import { pathBelow } from './paths.ts';

const READ_BYTES = 256 * 1024;

/**
 * The content of a file of the context: exactly as many bytes as it had when it was listed.
 * @throws CONTEXT_CHANGED when it is another file, or its size or time changed before or during the reading.
 */
export async function* readContent(directory: string, entry: ContextEntry): AsyncGenerator<Uint8Array, void> {
  const { path, sizeBytes, stamp } = entry;
  await using handle = await openFile(directory, entry);
  checkUnchanged(path, sizeBytes, stamp, await handle.stat({ bigint: true }));
  const buffer = new Uint8Array(Math.min(READ_BYTES, sizeBytes + 1));
  let at = 0;
  for (;;) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) break;
    at += bytesRead;
    if (at > sizeBytes) throw changed(path);
    yield buffer.subarray(0, bytesRead);
    if (at === sizeBytes && bytesRead < buffer.length) break;
  }
  if (at !== sizeBytes) throw changed(path);
  checkUnchanged(path, sizeBytes, stamp, await handle.stat({ bigint: true }));
}

async function openFile(directory: string, entry: ContextEntry) {
  try {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    return await open(pathBelow(directory, pathBytesOf(entry)), flags);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ELOOP' || errno === 'ENXIO')
      throw changed(entry.path, error);
    throw new DecantError(
      'CONTEXT_UNREADABLE',
      `The file ${quote(entry.path)} of the build context cannot be read (${errno ?? String(error)}).`,
      {
        hint: 'Give the user that runs this the right to read it, or exclude it in the ignore file.',
        details: { path: entry.path },
        cause: error,
      },
    );
  }
}
