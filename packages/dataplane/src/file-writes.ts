import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rmdir, unlink, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { errnoOf, isDecantError, toDecantError, toHex } from '@decant/core';

import { AREAS, type Area } from './file-layout.ts';

/** Times a write is repeated when a delete takes its empty folder away. */
const FOLDER_RACES = 100;

export function newId(): string {
  return toHex(randomBytes(16));
}

/** The folders of a file store, and the ways it changes them so that a crash leaves the old or the new. */
export class FileWrites {
  readonly #directory: string;
  readonly #durable: boolean;
  #made: Promise<void> | undefined;

  constructor(directory: string, durable: boolean) {
    this.#directory = directory;
    this.#durable = durable;
  }

  path(area: Area, ...names: string[]): string {
    return join(this.#directory, area, ...names);
  }

  /** Makes the areas, once. */
  async prepare(): Promise<void> {
    this.#made ??= this.#make();
    try {
      await this.#made;
    } catch (error) {
      this.#made = undefined;
      throw diskError(error);
    }
  }

  async #make(): Promise<void> {
    for (const area of AREAS) await mkdir(this.path(area), { recursive: true, mode: 0o700 });
    await this.syncFolder(this.#directory);
  }

  /** A new file under `temp`, filled by `fill`, durable if `lasting`; it is gone again when that fails. Returns its path. */
  async writeTemp(fill: (file: FileHandle) => Promise<void>, lasting: boolean): Promise<string> {
    await this.prepare();
    const path = this.path('temp', newId());
    try {
      const file = await open(path, 'wx', 0o600);
      try {
        await fill(file);
        if (lasting) await this.syncFile(file);
      } finally {
        await file.close();
      }
    } catch (error) {
      await removeFile(path);
      throw diskError(error);
    }
    return path;
  }

  /** Makes a finished file visible at `to`, under `objects`, over whatever is there. The file is gone when that fails. */
  async publish(from: string, to: string, lasting: boolean): Promise<void> {
    const folder = dirname(to);
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          await mkdir(folder, { recursive: true, mode: 0o700 });
          await rename(from, to);
          break;
        } catch (error) {
          // Node's recursive mkdir calls it ENOTDIR when a folder that it found is gone by the time it looks again.
          const raced = errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR';
          if (!raced || attempt === FOLDER_RACES) throw error;
        }
      }
      if (lasting) await this.syncUpwards(folder);
    } catch (error) {
      await removeFile(from);
      throw diskError(error);
    }
  }

  /** Removes folders that are empty, from `folder` up to the objects' root, and makes what is left durable. */
  async prune(folder: string): Promise<void> {
    const root = this.path('objects');
    let at = folder;
    while (at !== root) {
      try {
        await rmdir(at);
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') break;
      }
      at = dirname(at);
    }
    await this.syncFolder(at);
  }

  /** Makes the entries of a folder, and of those above it up to the store's own, survive a crash. */
  async syncUpwards(folder: string): Promise<void> {
    for (let at = folder; at.length >= this.#directory.length; at = dirname(at)) {
      await this.syncFolder(at);
      if (at === this.#directory) return;
    }
  }

  async syncFolder(folder: string): Promise<void> {
    if (!this.#durable) return;
    let handle: FileHandle;
    try {
      handle = await open(folder, 'r');
    } catch (error) {
      // Another process emptied and removed it; the object was deleted after it was written.
      if (errnoOf(error) === 'ENOENT') return;
      throw error;
    }
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async syncFile(file: FileHandle): Promise<void> {
    if (this.#durable) await file.datasync();
  }
}

export async function removeFile(path: string): Promise<void> {
  await unlink(path).catch(() => undefined);
}

/** A full disk as DISK_FULL, anything else as it came. */
export function diskError(error: unknown): unknown {
  const errno = errnoOf(error);
  return !isDecantError(error) && (errno === 'ENOSPC' || errno === 'EDQUOT') ? toDecantError(error) : error;
}

/** Writes all of it, however often the system has to be asked. */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at);
    at += bytesWritten;
  }
}
