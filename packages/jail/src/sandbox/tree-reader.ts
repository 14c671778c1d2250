import { lstat, open, readdir, readlink, realpath, type FileHandle } from 'node:fs/promises';
import { constants } from 'node:fs';

import { DecantError, errnoOf, quote } from '@decant/core';

import type { SandboxCopyLimits } from './types.ts';

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
const PIECE_BYTES = 256 * 1024;

/** Counts what a copy moves. */
export class CopyCount {
  readonly #limits: SandboxCopyLimits;
  #entries = 0;
  #bytes = 0;

  constructor(limits: SandboxCopyLimits) {
    this.#limits = limits;
  }

  /** @throws LIMIT_EXCEEDED */
  add(entries: number, bytes: number): void {
    this.#entries += entries;
    this.#bytes += bytes;
    const { entries: mostEntries, bytes: mostBytes } = this.#limits;
    if (this.#entries > mostEntries) {
      throw new DecantError('LIMIT_EXCEEDED', `The copy has more than ${mostEntries} entries.`);
    }
    if (this.#bytes > mostBytes) throw new DecantError('LIMIT_EXCEEDED', `The copy has more than ${mostBytes} bytes.`);
  }
}

/**
 * Reads a tree of the host in the form that copy-tasks.ts describes. Each directory is opened from the one above it, without
 * following links, so that a path that changes meanwhile leads nowhere else.
 * @throws USAGE for what cannot be copied or read, LIMIT_EXCEEDED, the reason of an abort.
 */
export async function* readTree(
  source: string,
  count: CopyCount,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const path = await realpath(source).catch((error: unknown) => {
    throw unreadable(source, error);
  });
  const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch((error: unknown) => {
    throw unreadable(source, error);
  });
  try {
    if ((await readlink(`/proc/self/fd/${handle.fd}`)) !== path) {
      throw new DecantError('USAGE', `${quote(source)} became another path while it was opened.`);
    }
    yield* readEntry(handle, Buffer.from('.'), source, count, signal);
    yield line('done');
  } finally {
    await handle.close();
  }
}

async function* readEntry(
  handle: FileHandle,
  name: Buffer,
  shown: string,
  count: CopyCount,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  signal?.throwIfAborted();
  const info = await handle.stat();
  count.add(1, 0);
  const facts = [(info.mode & 0o777).toString(8), Math.floor(info.mtimeMs / 1000), name.toString('hex')];
  if (info.isFile()) {
    yield line('file', ...facts);
    yield* readFileData(handle, info.blocks * 512 < info.size, count, signal);
    return;
  }
  if (!info.isDirectory()) throw refused(shown);
  yield line('dir', ...facts);
  const names = await readdir(`/proc/self/fd/${handle.fd}`, { encoding: 'buffer' });
  for (const inner of names.sort((a, b) => Buffer.compare(a, b))) {
    const path = Buffer.concat([Buffer.from(`/proc/self/fd/${handle.fd}/`), inner]);
    const innerShown = `${shown}/${inner.toString()}`;
    const innerInfo = await lstat(path);
    if (innerInfo.isSymbolicLink()) {
      count.add(1, 0);
      yield line('link', inner.toString('hex'), (await readlink(path, { encoding: 'buffer' })).toString('hex'));
    } else if (innerInfo.isFile() || innerInfo.isDirectory()) {
      const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | (innerInfo.isDirectory() ? O_DIRECTORY : 0);
      const opened = await open(path, flags).catch((error: unknown) => {
        throw unreadable(innerShown, error);
      });
      try {
        yield* readEntry(opened, inner, innerShown, count, signal);
      } finally {
        await opened.close();
      }
    } else {
      throw refused(innerShown);
    }
  }
  yield line('up');
}

async function* readFileData(
  handle: FileHandle,
  hasHoles: boolean,
  count: CopyCount,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (;;) {
    signal?.throwIfAborted();
    const piece = Buffer.allocUnsafe(PIECE_BYTES);
    const { bytesRead } = await handle.read(piece, 0, PIECE_BYTES, at);
    if (bytesRead === 0) break;
    const data = piece.subarray(0, bytesRead);
    if (!hasHoles || data.some((byte) => byte !== 0)) {
      count.add(0, bytesRead);
      yield line('data', at, bytesRead);
      yield data;
    }
    at += bytesRead;
  }
  yield line('size', at);
}

function line(...words: readonly (string | number)[]): Buffer {
  return Buffer.from(`${words.join(' ')}\n`, 'latin1');
}

function refused(path: string): DecantError {
  return new DecantError('USAGE', `${quote(path)} is neither a file, a directory nor a link, so it is not copied.`);
}

function unreadable(path: string, error: unknown): DecantError {
  if (errnoOf(error) === 'ELOOP') return refused(path);
  return new DecantError('USAGE', `${quote(path)} cannot be read: ${errnoOf(error) ?? 'unknown'}.`, { cause: error });
}
