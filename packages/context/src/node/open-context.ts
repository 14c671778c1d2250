import { realpath, stat } from 'node:fs/promises';
import { resolve } from 'node:path';

import { DecantError, errnoOf, formatBytes, quote } from '@decant/core';

import type { BuildContext, ContextEntry } from '../entry.ts';
import { parseIgnoreFile } from '../ignore/ignore-rules.ts';
import { findDockerfile, findIgnoreFile, pathInside, type FoundFile } from './build-files.ts';
import { walkContext } from './walk.ts';

export interface OpenContextOptions {
  /** Root of the context; a relative path counts from the working directory. */
  readonly directory: string;
  /** The Dockerfile: from the working directory first, then from the context. Default: `Dockerfile`, `dockerfile` in the context. */
  readonly dockerfile?: string | undefined;
  /** Default: that of the process. */
  readonly workingDirectory?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A context over this many bytes is worth a warning: it is most often an ignore file that is missing. */
const LARGE_BYTES = 100_000_000;
const LARGEST_SHOWN = 10;

/**
 * Decides what belongs to a build: finds the Dockerfile and the ignore file in effect and lists what travels.
 * No file's content is read but those two.
 * @throws CONTEXT_UNREADABLE, CONTEXT_ENTRY_UNSUPPORTED, CONTEXT_CHANGED, DOCKERFILE_UNREADABLE, IGNORE_FILE_INVALID
 */
export async function openContext(options: OpenContextOptions): Promise<BuildContext> {
  const { signal, workingDirectory = process.cwd() } = options;
  signal?.throwIfAborted();
  const directory = await rootOf(resolve(workingDirectory, options.directory));
  const dockerfile = await findDockerfile(directory, options.dockerfile, workingDirectory);
  const ignoreFile = await findIgnoreFile(directory, dockerfile.absolutePath);
  const rules = ignoreFile === undefined ? undefined : parseIgnoreFile(ignoreFile.bytes, ignoreFile.displayPath);
  const entries = await walkContext(directory, rules?.root, signal);
  const files = entries.filter(({ type }) => type === 'file');
  const bytes = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return {
    directory,
    dockerfile: {
      path: await pathAmong(entries, directory, dockerfile),
      absolutePath: dockerfile.absolutePath,
      displayPath: dockerfile.displayPath,
      bytes: dockerfile.bytes,
    },
    ignoreFile: ignoreFile?.displayPath ?? null,
    entries,
    totals: { files: entries.filter(({ type }) => type !== 'directory').length, bytes },
    largest: files.toSorted((a, b) => b.sizeBytes - a.sizeBytes).slice(0, LARGEST_SHOWN),
    warnings: bytes > LARGE_BYTES ? [largeWarning(bytes, ignoreFile)] : [],
  };
}

async function rootOf(directory: string): Promise<string> {
  const hint = 'Give the directory that holds what the Dockerfile copies.';
  try {
    const root = await realpath(directory);
    if ((await stat(root)).isDirectory()) return root;
  } catch (error) {
    const missing = errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR';
    const why = missing ? 'does not exist' : `cannot be read (${errnoOf(error) ?? String(error)})`;
    throw new DecantError('CONTEXT_UNREADABLE', `The build context ${quote(directory)} ${why}.`, {
      hint,
      cause: error,
    });
  }
  throw new DecantError('CONTEXT_UNREADABLE', `The build context ${quote(directory)} is not a directory.`, { hint });
}

/** Where the Dockerfile is among the entries as a file of its own; a link to it does not carry its bytes. */
async function pathAmong(entries: readonly ContextEntry[], root: string, found: FoundFile): Promise<string | null> {
  for (const candidate of [found.absolutePath, await realpath(found.absolutePath)]) {
    const path = pathInside(root, candidate);
    const entry = entries.find((one) => one.path === path && one.pathBytes === undefined);
    if (entry?.type === 'file' || entry?.type === 'hardlink') return entry.path;
  }
  return null;
}

function largeWarning(bytes: number, ignoreFile: FoundFile | undefined): string {
  const advice = ignoreFile === undefined ? 'there is no .dockerignore' : `see ${ignoreFile.displayPath}`;
  return `The build context is large: ${formatBytes(bytes)} (${advice}).`;
}
