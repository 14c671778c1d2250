import { chmodSync, constants, copyFileSync, linkSync, lstatSync, lutimesSync, mkdirSync, symlinkSync } from 'node:fs';
import { copyFile, mkdir, readdir } from 'node:fs/promises';

import { DecantError, errnoOf, quote, type OnEvent } from '@decant/core';

import { linkBytesOf, pathBytesOf } from '../archive/tar-header.ts';
import { bytesOf } from '../byte-string.ts';
import type { BuildContext, ContextEntry } from '../entry.ts';
import { changed, checkUnchanged } from './file-stamp.ts';
import { pathBelow } from './paths.ts';
import { Turn } from './turn.ts';

export interface MaterializeOptions {
  /** Told of progress in the stage `context`, at most about twenty times a second. */
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Files below this size are copied without leaving the event loop. */
const SMALL_BYTES = 1024 * 1024;
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
  const turn = new Turn();
  const target = (entry: ContextEntry) => pathBelow(targetDirectory, pathBytesOf(entry));
  for (const entry of context.entries) {
    signal?.throwIfAborted();
    if (turn.isOver) await turn.next(signal);
    const path = target(entry);
    if (entry.type === 'directory') mkdirSync(path, 0o700);
    else if (entry.type === 'symlink') symlinkSync(Buffer.from(bytesOf(linkBytesOf(entry))), path);
    else if (entry.type === 'hardlink') linkSync(pathBelow(targetDirectory, linkBytesOf(entry)), path);
    else await copyOne(context.directory, entry, path);
    if (entry.type === 'file') chmodSync(path, entry.mode);
    if (entry.type === 'file' || entry.type === 'symlink') lutimesSync(path, 0, 0);
    report(entry.sizeBytes);
  }
  // Directories last and from the inside out: one without the right to write could not be filled.
  for (const entry of context.entries.toReversed()) {
    if (entry.type !== 'directory') continue;
    if (turn.isOver) await turn.next(signal);
    chmodSync(target(entry), entry.mode);
    lutimesSync(target(entry), 0, 0);
  }
  report(0, true);
}

async function copyOne(directory: string, entry: ContextEntry, target: string | Buffer): Promise<void> {
  const source = pathBelow(directory, pathBytesOf(entry));
  const check = () => checkUnchanged(entry.path, entry.sizeBytes, entry.stamp, lstatSync(source, { bigint: true }));
  const how = constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL;
  try {
    check();
    if (entry.sizeBytes < SMALL_BYTES) copyFileSync(source, target, how);
    else await copyFile(source, target, how);
    check();
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
