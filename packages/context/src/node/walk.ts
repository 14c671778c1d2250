import type { BigIntStats, Dirent } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';

import { DecantError, errnoOf, quote } from '@decant/core';

import { bytesOf, isUtf8, textOf, toByteString, type ByteString } from '../byte-string.ts';
import type { ContextEntry } from '../entry.ts';
import type { IgnoreLevel } from '../ignore/ignore-rules.ts';
import { changed, stampOf } from './file-stamp.ts';
import { pathBelow } from './paths.ts';

/** Entries looked at at once; more would only wait in the thread pool. */
const AT_ONCE = 32;

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
  signal?: AbortSignal | undefined,
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

  constructor(directory: string, found: Found[], signal: AbortSignal | undefined) {
    this.#directory = directory;
    this.#found = found;
    this.#signal = signal;
  }

  /** Walks one directory; true when anything in it is kept. */
  async visit(folder: ByteString, level: IgnoreLevel | undefined, tolerant = false): Promise<boolean> {
    this.#signal?.throwIfAborted();
    const before = this.#found.length;
    const children = await this.#list(folder, tolerant);
    const folders: { path: ByteString; below: IgnoreLevel | undefined; keep: boolean }[] = [];
    const kept: ByteString[] = [];
    for (const child of children) {
      const path = (folder === '' ? toByteString(child.name) : `${folder}/${toByteString(child.name)}`) as ByteString;
      const decision = level?.decide(isAsciiPath(path) ? path : bytesOf(path), child.isDirectory());
      if (decision?.action === 'skip' || child.isSocket()) continue;
      if (child.isDirectory()) {
        folders.push({ path, below: decision?.below, keep: decision?.action !== 'descend' });
      } else {
        kept.push(path);
      }
    }
    for (let at = 0; at < kept.length; at += AT_ONCE) {
      await Promise.all(kept.slice(at, at + AT_ONCE).map((path) => this.#take(path)));
    }
    for (const { path, below, keep } of folders) {
      if ((await this.visit(path, below, !keep)) || keep) await this.#take(path);
    }
    return this.#found.length > before;
  }

  async #list(folder: ByteString, tolerant: boolean): Promise<Dirent<Buffer>[]> {
    try {
      return await readdir(pathBelow(this.#directory, folder), { withFileTypes: true, encoding: 'buffer' });
    } catch (error) {
      // An excluded directory is only entered to look for exceptions; one that may not be read has none.
      if (tolerant && (errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM')) return [];
      throw unreadable(folder, error);
    }
  }

  async #take(path: ByteString): Promise<void> {
    const full = pathBelow(this.#directory, path);
    try {
      const stats = await lstat(full, { bigint: true });
      const link = stats.isSymbolicLink()
        ? toByteString(await readlink(full, { encoding: 'buffer' }))
        : ('' as ByteString);
      if (!stats.isSocket()) this.#found.push({ path, stats, link });
    } catch (error) {
      throw unreadable(path, error);
    }
  }
}

function isAsciiPath(path: ByteString): boolean {
  return !/[^\x00-\x7f]/.test(path);
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
