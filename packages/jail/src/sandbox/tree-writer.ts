import { constants } from 'node:fs';
import { mkdir, open, realpath, rm, symlink, type FileHandle } from 'node:fs/promises';
import { basename, dirname } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';

import { unhex } from './conversation.ts';
import type { CopyCount } from './tree-reader.ts';

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;
const LONGEST_LINE = 32 * 1024;
const DEEPEST = 1000;
/** Of the names on the way to an entry, so that programs can reach it by a path (PATH_MAX is 4,096). */
const LONGEST_PATH = 3500;
/** What is between its pieces of data takes no space, but not every program that reads it knows. */
const LARGEST_FILE = 2 ** 40;

/**
 * Writes a tree, in the form that copy-tasks.ts describes, to a path of the host that does not exist. The tree comes from a place
 * that is not trusted: a name is one component, everything is created new in a directory that was created or opened
 * before, and no link is followed. On failure nothing of it stays.
 * @throws USAGE for a target that cannot be written, JAIL_FAILED for what is no such tree, LIMIT_EXCEEDED.
 */
export async function writeTree(
  pieces: AsyncIterable<Uint8Array>,
  target: string,
  count: CopyCount,
  signal: AbortSignal | undefined,
): Promise<void> {
  const name = basename(target);
  const parentPath = await realpath(dirname(target)).catch((error: unknown) => {
    throw unwritable(target, error);
  });
  if (name === '' || name === '.' || name === '..') throw unwritable(target, undefined);
  const parent = await open(parentPath, O_RDONLY | O_DIRECTORY | O_NOFOLLOW).catch((error: unknown) => {
    throw unwritable(target, error);
  });
  const opened: FileHandle[] = [];
  const made = { first: false };
  try {
    await writeEntries(new PieceReader(pieces), { above: [parent], open: opened, name, target, made, count, signal });
  } catch (error) {
    // What this copy made, and nothing that was there before.
    if (made.first) await rm(`/proc/self/fd/${parent.fd}/${name}`, { recursive: true, force: true });
    throw error;
  } finally {
    for (const handle of opened) await handle.close().catch(() => undefined);
    await parent.close();
  }
}

interface Writing {
  readonly above: FileHandle[];
  readonly open: FileHandle[];
  readonly name: string;
  readonly target: string;
  readonly made: { first: boolean };
  readonly count: CopyCount;
  readonly signal: AbortSignal | undefined;
}

async function writeEntries(reader: PieceReader, writing: Writing): Promise<void> {
  const { above, target, made, count, signal } = writing;
  const modes: { mode: number; seconds: number; pathBytes: number }[] = [];
  for (;;) {
    signal?.throwIfAborted();
    const [kind, ...words] = await reader.words();
    if (kind === 'done' && above.length === 1 && made.first) return;
    if (kind === 'fail') {
      throw new DecantError('USAGE', `It cannot be copied out: ${quote(unhex(words[0]))}.`);
    }
    if (kind === 'up' && above.length > 1) {
      const [handle, entry] = [above.pop()!, modes.pop()!];
      await handle.chmod(entry.mode);
      await handle.utimes(entry.seconds, entry.seconds);
      writing.open.splice(writing.open.indexOf(handle), 1);
      await handle.close();
      continue;
    }
    // One entry stands for the source itself; whatever else there is lies in it.
    if (above.length === 1 && made.first) throw broken();
    count.add(1, 0);
    const [mode, seconds, coded] = kind === 'link' ? [0, 0, words[0]] : [...number2(words), words[2]];
    const path = Buffer.concat([
      Buffer.from(`/proc/self/fd/${above.at(-1)!.fd}/`),
      above.length === 1 ? Buffer.from(writing.name) : component(coded),
    ]);
    try {
      if (kind === 'link') await symlink(bytesOf(words[1]), path);
      else if (kind === 'file') await writeFile(reader, path, { mode, seconds }, writing);
      else if (kind === 'dir') {
        const pathBytes = (modes.at(-1)?.pathBytes ?? 0) + bytesOf(coded).length + 1;
        if (above.length > DEEPEST || pathBytes > LONGEST_PATH) {
          throw new DecantError('LIMIT_EXCEEDED', 'The copy is too deep.');
        }
        await mkdir(path, 0o700);
        made.first = true;
        const handle = await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        writing.open.push(handle);
        above.push(handle);
        modes.push({ mode, seconds, pathBytes });
      } else throw broken();
      made.first = true;
    } catch (error) {
      throw errnoOf(error) === undefined ? error : unwritable(target, error);
    }
  }
}

async function writeFile(
  reader: PieceReader,
  path: Buffer,
  { mode, seconds }: { readonly mode: number; readonly seconds: number },
  { count, made }: Writing,
): Promise<void> {
  const handle = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  made.first = true;
  try {
    for (;;) {
      const [verb, ...words] = await reader.words();
      const [at = NaN, length = NaN] = words.map(Number);
      if (verb === 'fail') throw new DecantError('USAGE', `It cannot be copied out: ${quote(unhex(words[0]))}.`);
      if (!Number.isSafeInteger(at) || at < 0) throw broken();
      if (at > LARGEST_FILE) throw new DecantError('LIMIT_EXCEEDED', 'A file of the copy has more than 1 TiB.');
      if (verb === 'size') {
        await handle.truncate(at);
        break;
      }
      if (verb !== 'data' || !Number.isSafeInteger(length) || length < 1) throw broken();
      count.add(0, length);
      let done = 0;
      while (done < length) {
        const piece = await reader.some(length - done);
        for (let put = 0; put < piece.length;) {
          put += (await handle.write(piece, put, piece.length - put, at + done + put)).bytesWritten;
        }
        done += piece.length;
      }
    }
    await handle.chmod(mode);
    await handle.utimes(seconds, seconds);
  } finally {
    await handle.close();
  }
}

/** Takes lines and bytes from pieces. */
export class PieceReader {
  readonly #pieces: AsyncIterator<Uint8Array>;
  #held: Buffer = Buffer.alloc(0);

  constructor(pieces: AsyncIterable<Uint8Array>) {
    this.#pieces = pieces[Symbol.asyncIterator]();
  }

  async #more(): Promise<void> {
    const { value, done } = await this.#pieces.next();
    if (done === true) throw broken();
    const piece = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    this.#held = this.#held.length === 0 ? piece : Buffer.concat([this.#held, piece]);
  }

  async words(): Promise<readonly string[]> {
    for (;;) {
      const end = this.#held.indexOf(0x0a);
      if (end > LONGEST_LINE || (end < 0 && this.#held.length > LONGEST_LINE)) throw broken();
      if (end >= 0) {
        const text = this.#held.toString('latin1', 0, end);
        this.#held = this.#held.subarray(end + 1);
        return text.split(' ');
      }
      await this.#more();
    }
  }

  /** At least one byte, at most so many. */
  async some(most: number): Promise<Buffer> {
    if (this.#held.length === 0) await this.#more();
    const piece = this.#held.subarray(0, most);
    this.#held = this.#held.subarray(piece.length);
    return piece;
  }
}

function number2([mode = '', seconds = '']: readonly string[]): [number, number] {
  if (!/^[0-7]{1,4}$/.test(mode) || !/^-?\d{1,15}$/.test(seconds)) throw broken();
  return [Number.parseInt(mode, 8) & 0o777, Number(seconds)];
}

function component(coded: string | undefined): Buffer {
  const name = bytesOf(coded);
  const text = name.toString('latin1');
  if (text === '' || text === '.' || text === '..' || /[/\0]/.test(text) || name.length > 255) throw broken();
  return name;
}

function bytesOf(coded: string | undefined): Buffer {
  if (coded === undefined || !/^(?:[0-9a-f]{2})+$/.test(coded)) throw broken();
  return Buffer.from(coded, 'hex');
}

function broken(): DecantError {
  return new DecantError('JAIL_FAILED', 'What came out of the sandbox is not a tree of files.');
}

function unwritable(target: string, error: unknown): DecantError {
  const why = errnoOf(error);
  const reason = why === 'EEXIST' ? 'there is something already' : (why ?? 'it has no name');
  return new DecantError('USAGE', `${quote(target)} cannot be written: ${reason}.`, { cause: error });
}
