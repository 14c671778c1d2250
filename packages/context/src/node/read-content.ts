import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { open } from 'node:fs/promises';

import { DecantError, errnoOf, quote } from '@decant/core';

import type { ContextEntry } from '../entry.ts';
import { pathBytesOf } from '../archive/tar-header.ts';
import { changed, checkUnchanged } from './file-stamp.ts';
import { pathBelow } from './paths.ts';
import { Turn } from './turn.ts';

const READ_BYTES = 256 * 1024;
/** Files below this size are read in one go. */
const SMALL_BYTES = 64 * 1024;

/** Reads the content of a context's files, each with exactly as many bytes as it had when it was listed. */
export class ContentReader {
  readonly #directory: string;
  readonly #signal: AbortSignal | undefined;
  readonly #buffer = new Uint8Array(READ_BYTES);
  readonly #turn = new Turn();

  constructor(directory: string, signal: AbortSignal | undefined) {
    this.#directory = directory;
    this.#signal = signal;
  }

  /**
   * What it yields is overwritten when the next is asked for.
   * @throws CONTEXT_CHANGED when it is another file, or its size or time changed before or during the reading.
   */
  async *read(entry: ContextEntry): AsyncGenerator<Uint8Array, void> {
    if (this.#turn.isOver) await this.#turn.next(this.#signal);
    if (entry.sizeBytes < SMALL_BYTES) yield this.#readSmall(entry);
    else yield* this.#readLarge(entry);
  }

  #readSmall(entry: ContextEntry): Uint8Array {
    const { path, sizeBytes, stamp } = entry;
    const file = openSmall(this.#directory, entry);
    try {
      checkUnchanged(path, sizeBytes, stamp, fstatSync(file, { bigint: true }));
      let filled = 0;
      // One byte more than there should be shows a file that grew.
      for (let more = 1; more > 0 && filled <= sizeBytes; filled += more) {
        more = readSync(file, this.#buffer, filled, sizeBytes + 1 - filled, filled);
      }
      if (filled !== sizeBytes) throw changed(path);
      checkUnchanged(path, sizeBytes, stamp, fstatSync(file, { bigint: true }));
      return this.#buffer.subarray(0, sizeBytes);
    } finally {
      closeSync(file);
    }
  }

  async *#readLarge(entry: ContextEntry): AsyncGenerator<Uint8Array, void> {
    const { path, sizeBytes, stamp } = entry;
    await using handle = await openLarge(this.#directory, entry);
    checkUnchanged(path, sizeBytes, stamp, await handle.stat({ bigint: true }));
    let at = 0;
    for (;;) {
      const { bytesRead } = await handle.read(this.#buffer, 0, this.#buffer.length, at);
      if (bytesRead === 0) break;
      at += bytesRead;
      if (at > sizeBytes) throw changed(path);
      yield this.#buffer.subarray(0, bytesRead);
    }
    if (at !== sizeBytes) throw changed(path);
    checkUnchanged(path, sizeBytes, stamp, await handle.stat({ bigint: true }));
  }
}

function openSmall(directory: string, entry: ContextEntry): number {
  try {
    return openSync(pathBelow(directory, pathBytesOf(entry)), FLAGS);
  } catch (error) {
    throw openFault(entry, error);
  }
}

/** What opening says when something else is where the file was. */
const GONE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO']);

/** A final link is not followed, and a FIFO that took the file's place not waited for. */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

async function openLarge(directory: string, entry: ContextEntry) {
  try {
    return await open(pathBelow(directory, pathBytesOf(entry)), FLAGS);
  } catch (error) {
    throw openFault(entry, error);
  }
}

function openFault(entry: ContextEntry, error: unknown): DecantError {
  const errno = errnoOf(error);
  if (errno !== undefined && GONE.has(errno)) return changed(entry.path, error);
  const why = errno ?? String(error);
  return new DecantError(
    'CONTEXT_UNREADABLE',
    `The file ${quote(entry.path)} of the build context cannot be read (${why}).`,
    {
      hint: 'Give the user that runs this the right to read it, or exclude it in the ignore file.',
      details: { path: entry.path },
      cause: error,
    },
  );
}
