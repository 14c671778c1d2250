import { lstatSync, readdirSync, readlinkSync, type BigIntStats, type Dirent } from 'node:fs';

import { DecantError, errnoOf, quote } from '@decant/core';

import { bytesOf, isAscii, isUtf8, textOf, toByteString, type ByteString } from '../byte-string.ts';
import type { ContextEntry } from '../entry.ts';
import type { IgnoreLevel } from '../ignore/ignore-rules.ts';
import { changed, stampOf } from './file-stamp.ts';
import { pathBelow } from './paths.ts';
import { Turn } from './turn.ts';

interface Found {
  readonly path: ByteString;
  readonly stats: BigIntStats;
  readonly link: ByteString;
}

/**
 * Everything below a directory that the rules let through, sorted by path bytes. Sockets are left out; the second
 * and later names of a file become hard links to the first.
 * @throws CONTEXT_ENTRY_UNSUPPORTED for a FIFO or a device, CONTEXT_UNREADABLE, CONTEXT_CHANGED.
 */
export async function walkContext(
  directory: string,
  rules: IgnoreLevel | undefined,
  signal: AbortSignal | undefined,
): Promise<ContextEntry[]> {
  const found: Found[] = [];
  await new Walk(directory, found, signal).visit('' as ByteString, rules);
  found.sort((a, b) => (a.path < b.path ? -1 : 1));
  const firstNames = new Map<string, ByteString>();
  return found.map((one) => entryOf(one, firstNames));
}

class Walk {
  readonly #directory: string;
  readonly #found: Found[];
  readonly #signal: AbortSignal | undefined;
  readonly #turn = new Turn();

  constructor(directory: string, found: Found[], signal: AbortSignal | undefined) {
    this.#directory = directory;
    this.#found = found;
    this.#signal = signal;
  }

  /** Walks one directory; true when anything in it is kept. */
  async visit(folder: ByteString, level: IgnoreLevel | undefined, tolerant = false): Promise<boolean> {
    this.#signal?.throwIfAborted();
    const before = this.#found.length;
    const folders: { path: ByteString; below: IgnoreLevel | undefined; keep: boolean }[] = [];
    for (const child of this.#list(folder, tolerant)) {
      if (this.#turn.isOver) await this.#turn.next(this.#signal);
      const name = toByteString(child.name);
      const path = (folder === '' ? name : `${folder}/${name}`) as ByteString;
      const isDirectory = child.isDirectory();
      const decision = level?.decide(isAscii(path) ? path : bytesOf(path), isDirectory);
      if (decision?.action === 'skip') continue;
      if (isDirectory) folders.push({ path, below: decision?.below, keep: decision?.action !== 'descend' });
      else this.#take(path);
    }
    for (const { path, below, keep } of folders) {
      if ((await this.visit(path, below, !keep)) || keep) this.#take(path);
    }
    return this.#found.length > before;
  }

  #list(folder: ByteString, tolerant: boolean): Dirent<Buffer>[] {
    try {
      return readdirSync(pathBelow(this.#directory, folder), { withFileTypes: true, encoding: 'buffer' });
    } catch (error) {
      // An excluded directory is only entered to look for exceptions; one that may not be read has none.
      if (tolerant && (errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM')) return [];
      throw unreadable(folder, error);
    }
  }

  #take(path: ByteString): void {
    const full = pathBelow(this.#directory, path);
    try {
      const stats = lstatSync(full, { bigint: true });
      const isLink = stats.isSymbolicLink();
      const link = isLink ? toByteString(readlinkSync(full, { encoding: 'buffer' })) : ('' as ByteString);
      if (!stats.isSocket()) this.#found.push({ path, stats, link });
    } catch (error) {
      throw unreadable(path, error);
    }
  }
}

function unreadable(path: ByteString, cause: unknown): DecantError {
  const shown = textOf(path);
  if (path !== '' && (errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ENOTDIR')) return changed(shown, cause);
  const what = path === '' ? 'The build context' : `The directory or file ${quote(shown)} of the build context`;
  return new DecantError('CONTEXT_UNREADABLE', `${what} cannot be read (${errnoOf(cause) ?? String(cause)}).`, {
    hint: 'Give the user that runs this the right to read it, or exclude it in the ignore file.',
    details: { path: shown },
    cause,
  });
}

function entryOf({ path, stats, link }: Found, firstNames: Map<string, ByteString>): ContextEntry {
  const named = nameFields(path);
  const mode = Number(stats.mode & 0o7777n);
  if (stats.isDirectory()) return { ...named, type: 'directory', sizeBytes: 0, mode };
  // The mode of a link means nothing and differs between systems.
  if (stats.isSymbolicLink()) return { ...named, type: 'symlink', sizeBytes: 0, mode: 0o777, ...linkFields(link) };
  if (!stats.isFile()) {
    const what = stats.isFIFO() ? 'a FIFO' : 'a device';
    throw new DecantError('CONTEXT_ENTRY_UNSUPPORTED', `The build context has ${what} at ${quote(named.path)}.`, {
      hint: 'Remove it or exclude it in the ignore file.',
      details: { path: named.path },
    });
  }
  if (stats.nlink > 1n) {
    const identity = `${stats.dev}:${stats.ino}`;
    const first = firstNames.get(identity);
    if (first !== undefined) return { ...named, type: 'hardlink', sizeBytes: 0, mode, ...linkFields(first) };
    firstNames.set(identity, path);
  }
  return { ...named, type: 'file', sizeBytes: Number(stats.size), mode, stamp: stampOf(stats) };
}

function nameFields(path: ByteString): Pick<ContextEntry, 'path' | 'pathBytes'> {
  return isUtf8(path) ? { path: textOf(path) } : { path: textOf(path), pathBytes: bytesOf(path) };
}

function linkFields(target: ByteString): Pick<ContextEntry, 'linkTarget' | 'linkTargetBytes'> {
  const linkTarget = textOf(target);
  return isUtf8(target) ? { linkTarget } : { linkTarget, linkTargetBytes: bytesOf(target) };
}
