import { stat, realpath } from 'node:fs/promises';
import { resolve } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';

import type { ContextEntry } from '../entry.ts';
import type { IgnoreLevel } from '../ignore/ignore-rules.ts';
import { ContentReader } from './read-content.ts';
import { walkContext } from './walk.ts';

export interface ReadDirectoryOptions {
  /** Decides what is left out, beginning with what lies directly in the directory; default: nothing. */
  readonly rules?: ((root: string) => IgnoreLevel) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a directory holds, and its content. */
export interface DirectoryTree {
  /** Absolute, without links. */
  readonly directory: string;
  /** Sorted by the bytes of their paths: a directory comes before what is in it. */
  readonly entries: readonly ContextEntry[];
  /**
   * The bytes of a file; each piece is overwritten when the next is asked for.
   * @throws CONTEXT_CHANGED when the file is not as it was listed.
   */
  read(entry: ContextEntry): AsyncIterable<Uint8Array>;
}

/**
 * Lists a directory as a build context is listed, without a Dockerfile: links as links, second names as hard links,
 * sockets left out. @throws CONTEXT_UNREADABLE, CONTEXT_ENTRY_UNSUPPORTED, CONTEXT_CHANGED
 */
export async function readDirectoryTree(
  directory: string,
  { rules, signal }: ReadDirectoryOptions = {},
): Promise<DirectoryTree> {
  signal?.throwIfAborted();
  const root = await realpath(resolve(directory)).catch((error: unknown) => {
    throw unreadable(directory, `cannot be read (${errnoOf(error) ?? String(error)})`, error);
  });
  if (!(await stat(root)).isDirectory()) throw unreadable(directory, 'is not a directory');
  const entries = await walkContext(root, rules?.(root), signal);
  const reader = new ContentReader(root, signal);
  return { directory: root, entries, read: (entry) => reader.read(entry) };
}

function unreadable(directory: string, why: string, cause?: unknown): DecantError {
  return new DecantError('CONTEXT_UNREADABLE', `The directory ${quote(directory)} ${why}.`, { cause });
}
