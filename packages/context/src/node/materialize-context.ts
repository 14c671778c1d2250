import { constants } from 'node:fs';
import { chmod, copyFile, link, lstat, lutimes, mkdir, readdir, symlink } from 'node:fs/promises';

import { DecantError, errnoOf, quote, type OnEvent } from '@decant/core';

import { linkBytesOf, pathBytesOf } from '../archive/tar-header.ts';
import { bytesOf, type ByteString } from '../byte-string.ts';
import type { BuildContext, ContextEntry } from '../entry.ts';
import { changed, checkUnchanged } from './file-stamp.ts';
import { pathBelow } from './paths.ts';

export interface MaterializeOptions {
  /** Told of progress in the stage `context`, at most about twenty times a second. */
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Files copied at once. */
const AT_ONCE = 16;
const PROGRESS_MS = 50;

/**
 * Copies a context's entries into a directory that does not exist or is empty, for engines that take only a
 * directory. The copy says what the archive says: modes and links kept, all times 0 (1970). Content is shared
 * with the original where the filesystem can (reflinks). What was copied stays behind when this fails.
 * @throws CONTEXT_CHANGED naming the file; USAGE when the directory is not empty.
 */
export async function materializeContext(
  context: BuildContext,
  targetDirectory: string,
  options: MaterializeOptions = {},
): Promise<void> {
  const { signal } = options;
  const report = reporter(context, options.onEvent);
  await mkdir(targetDirectory, { recursive: true });
  if ((await readdir(targetDirectory)).length > 0) {
    throw new DecantError('USAGE', `The directory ${quote(targetDirectory)} is not empty.`);
  }
  const target = (entry: ContextEntry) => pathBelow(targetDirectory, pathBytesOf(entry));
  const directories = context.entries.filter(({ type }) => type === 'directory');
  for (const entry of directories) {
    signal?.throwIfAborted();
    await mkdir(target(entry), 0o700);
  }
  const files = context.entries.filter(({ type }) => type === 'file');
  for (let at = 0; at < files.length; at += AT_ONCE) {
    signal?.throwIfAborted();
    await Promise.all(
      files.slice(at, at + AT_ONCE).map(async (entry) => {
        await copyOne(context.directory, entry, target(entry));
        report(entry.sizeBytes);
      }),
    );
  }
  for (const entry of context.entries) {
    signal?.throwIfAborted();
    if (entry.type === 'symlink') await symlink(nodePath(linkBytesOf(entry)), target(entry));
    if (entry.type === 'hardlink') await link(pathBelow(targetDirectory, linkBytesOf(entry)), target(entry));
    if (entry.type === 'symlink') await lutimes(target(entry), 0, 0);
  }
  // Last and from the inside out: a directory without the right to write could not be filled.
  for (const entry of directories.toReversed()) {
    await chmod(target(entry), entry.mode);
    await lutimes(target(entry), 0, 0);
  }
  report(0, true);
}

async function copyOne(directory: string, entry: ContextEntry, target: string | Buffer): Promise<void> {
  const source = pathBelow(directory, pathBytesOf(entry));
  const check = async () =>
    checkUnchanged(entry.path, entry.sizeBytes, entry.stamp, await lstat(source, { bigint: true }));
  try {
    await check();
    await copyFile(source, target, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
    await check();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw changed(entry.path, error);
    if (errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM') {
      throw new DecantError(
        'CONTEXT_UNREADABLE',
        `The file ${quote(entry.path)} of the build context cannot be read.`,
        {
          hint: 'Give the user that runs this the right to read it, or exclude it in the ignore file.',
          details: { path: entry.path },
          cause: error,
        },
      );
    }
    throw error;
  }
  await chmod(target, entry.mode);
  await lutimes(target, 0, 0);
}

function nodePath(path: ByteString): Buffer {
  return Buffer.from(bytesOf(path));
}

function reporter(context: BuildContext, onEvent: OnEvent | undefined) {
  const totalBytes = context.totals.bytes;
  const started = performance.now();
  let reported = started;
  let bytes = 0;
  onEvent?.({ type: 'stage-started', stage: 'context', totalBytes });
  return (more: number, finished = false) => {
    const now = performance.now();
    bytes += more;
    if (finished) onEvent?.({ type: 'stage-finished', stage: 'context', bytes, elapsedMs: Math.round(now - started) });
    else if (now - reported >= PROGRESS_MS) {
      reported = now;
      onEvent?.({ type: 'stage-progress', stage: 'context', bytes, totalBytes });
    }
  };
}
