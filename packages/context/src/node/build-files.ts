import type { FileHandle } from 'node:fs/promises';
import { constants } from 'node:fs';
import { lstat, open, realpath } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';

/** Largest Dockerfile or ignore file that is read. */
const LARGEST_FILE = 4 * 1024 * 1024;

export interface FoundFile {
  readonly absolutePath: string;
  /** Relative to the context when inside of it, else absolute. */
  readonly displayPath: string;
  readonly bytes: Buffer;
}

/**
 * The Dockerfile: `given` against the working directory first and then against the context; without it,
 * `Dockerfile` in the context and then `dockerfile`.
 * @throws DOCKERFILE_UNREADABLE
 */
export async function findDockerfile(
  root: string,
  given: string | undefined,
  workingDirectory: string,
): Promise<FoundFile> {
  const candidates =
    given === undefined
      ? [join(root, 'Dockerfile'), join(root, 'dockerfile')]
      : [...new Set([resolve(workingDirectory, given), resolve(root, given)])];
  for (const absolutePath of candidates) {
    try {
      return { absolutePath, displayPath: displayPath(root, absolutePath), bytes: await readRegular(absolutePath) };
    } catch (error) {
      if (isMissing(error)) continue;
      throw dockerfileFault(`The Dockerfile ${quote(absolutePath)} cannot be read: ${reason(error)}.`, error);
    }
  }
  if (given === undefined) throw dockerfileFault(`There is no Dockerfile in ${quote(root)}.`);
  throw dockerfileFault(`There is no Dockerfile at ${quote(given)}.`);
}

function dockerfileFault(message: string, cause?: unknown): DecantError {
  return new DecantError('DOCKERFILE_UNREADABLE', message, {
    hint: 'Name it with -f FILE; a relative name counts from the working directory, then from the context.',
    cause,
  });
}

/**
 * The ignore file in effect: the Dockerfile's own (`NAME.dockerignore` beside it), even when empty, else
 * `.dockerignore` in the context. Links are followed as long as they stay in the context (or in the Dockerfile's
 * directory, for its own); what is not a file does not count.
 * @throws CONTEXT_UNREADABLE when it is there and cannot be read.
 */
export async function findIgnoreFile(root: string, dockerfile: string): Promise<FoundFile | undefined> {
  const own = join(dirname(dockerfile), `${basename(dockerfile)}.dockerignore`);
  for (const [absolutePath, homes] of [
    [own, [root, dirname(dockerfile)]],
    [join(root, '.dockerignore'), [root]],
  ] as const) {
    try {
      const target = await targetInside(absolutePath, homes);
      if (target === undefined) continue;
      return { absolutePath, displayPath: displayPath(root, absolutePath), bytes: await readRegular(target) };
    } catch (error) {
      if (isMissing(error) || error instanceof NotAFile) continue;
      throw new DecantError(
        'CONTEXT_UNREADABLE',
        `The ignore file ${quote(absolutePath)} cannot be read: ${reason(error)}.`,
        {
          hint: 'Give the user that runs this the right to read it.',
          details: { path: absolutePath },
          cause: error,
        },
      );
    }
  }
  return undefined;
}

/** Where a path leads, or undefined when a link leads it out of all of the directories. */
async function targetInside(path: string, homes: readonly string[]): Promise<string | undefined> {
  if (!(await lstat(path)).isSymbolicLink()) return path;
  const target = await realpath(path);
  for (const home of homes) if (isInside(await realpath(home), target)) return target;
  return undefined;
}

/** The path below `root` with `/`, or undefined when `path` is not below it. */
export function pathInside(root: string, path: string): string | undefined {
  return isInside(root, path) ? relative(root, path).split(sep).join('/') : undefined;
}

function isInside(root: string, path: string): boolean {
  const way = relative(root, path);
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

function displayPath(root: string, absolutePath: string): string {
  return pathInside(root, absolutePath) ?? absolutePath;
}

class NotAFile extends Error {}

/** The bytes of a regular file of a bounded size; opening does not wait for a writer of a FIFO. */
async function readRegular(path: string): Promise<Buffer> {
  await using handle: FileHandle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const stats = await handle.stat();
  if (!stats.isFile()) throw new NotAFile('it is not a file');
  const buffer = Buffer.alloc(Math.min(stats.size, LARGEST_FILE) + 1);
  let filled = 0;
  for (;;) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, filled);
    filled += bytesRead;
    if (bytesRead === 0) return buffer.subarray(0, filled);
    if (filled === buffer.length) throw new Error(`it is over ${LARGEST_FILE} bytes or still growing`);
  }
}

function isMissing(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR';
}

function reason(error: unknown): string {
  return errnoOf(error) ?? (error instanceof Error ? error.message : String(error));
}
