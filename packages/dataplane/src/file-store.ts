import { open, readdir, stat, unlink, type FileHandle } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';

import { DecantError, errnoOf, type ByteRange, type ObjectInfo, type ObjectStore } from '@decant/core';

import { parseName, pathOfKey } from './file-layout.ts';
import { FileMultipart } from './file-multipart.ts';
import { Sweeper } from './file-sweep.ts';
import { FileWrites, writeAll } from './file-writes.ts';
import { checkRange, objectNotFound } from './object-errors.ts';
import { checkKey } from './object-key.ts';
import { piecesOf } from './pieces.ts';

export interface FileObjectStoreOptions {
  /** The store's own folder; made when it is not there. Nothing else may be kept in it. */
  readonly directory: string;
  /**
   * `always`: what a call has written survives a loss of power once it returns. `never`: for throw-away stores. Or which keys'
   * objects survive it: of the others any bytes may be lost then, so whoever reads them verifies them.
   */
  readonly fsync: 'always' | 'never' | ((key: string) => boolean);
}

/** Small pieces are collected with the young generation; of large ones tens of megabytes wait for a full collection. */
const PIECE_BYTES = 64 * 1024;

/**
 * An object store in a folder. Any number of processes may use one folder at once; the layout is drawn in
 * file-layout.ts. What a killed process leaves behind is invisible and removed a day later.
 * @throws DISK_FULL when the disk is, besides what the port says.
 */
export function createFileObjectStore(options: FileObjectStoreOptions): ObjectStore {
  const { fsync } = options;
  const writes = new FileWrites(resolve(options.directory), fsync !== 'never');
  const lasting = (key: string) => (typeof fsync === 'function' ? fsync(key) : fsync === 'always');
  const sweeper = new Sweeper(writes);
  const multipart = new FileMultipart(writes, lasting);
  const pathOf = (key: string): string => {
    checkKey(key);
    return writes.path('objects', pathOfKey(key));
  };

  return {
    async put(key, body, { signal } = {}) {
      const to = pathOf(key);
      signal?.throwIfAborted();
      sweeper.nudge();
      let sizeBytes = 0;
      const temp = await writes.writeTemp(async (file) => {
        for await (const piece of piecesOf(body, signal)) {
          await writeAll(file, piece);
          sizeBytes += piece.length;
        }
      }, lasting(key));
      await writes.publish(temp, to, lasting(key));
      return { key, sizeBytes };
    },
    async get(key, { range, signal } = {}) {
      signal?.throwIfAborted();
      const { file, inside } = await openObject(pathOf(key), key, range);
      try {
        const bytes = new Uint8Array(inside.lengthBytes);
        await readInto(file, bytes, inside.offset, key);
        signal?.throwIfAborted();
        return bytes;
      } finally {
        await file.close();
      }
    },
    async *stream(key, { range, signal } = {}) {
      signal?.throwIfAborted();
      const { file, inside } = await openObject(pathOf(key), key, range);
      try {
        const end = inside.offset + inside.lengthBytes;
        for (let at = inside.offset; at < end; at += PIECE_BYTES) {
          signal?.throwIfAborted();
          const piece = new Uint8Array(Math.min(PIECE_BYTES, end - at));
          await readInto(file, piece, at, key);
          yield piece;
        }
      } finally {
        await file.close();
      }
    },
    async head(key, { signal } = {}) {
      signal?.throwIfAborted();
      const sizeBytes = await sizeOf(pathOf(key));
      return sizeBytes === undefined ? undefined : { key, sizeBytes };
    },
    async delete(key, { signal } = {}) {
      signal?.throwIfAborted();
      const path = pathOf(key);
      try {
        await unlink(path);
      } catch (error) {
        if (!isAbsent(error)) throw error;
        return;
      }
      await writes.prune(dirname(path));
    },
    list: (prefix, { signal } = {}) =>
      walk(writes.path('objects'), '', Buffer.from(prefix, 'utf8').toString('latin1'), signal),

    async createMultipart(key, { signal } = {}) {
      checkKey(key);
      signal?.throwIfAborted();
      sweeper.nudge();
      return multipart.create(key);
    },
    putPart: (key, uploadId, partNumber, body, { signal } = {}) =>
      multipart.putPart(key, uploadId, partNumber, body, signal),
    async completeMultipart(key, uploadId, parts, { signal } = {}) {
      const to = pathOf(key);
      signal?.throwIfAborted();
      return multipart.complete(key, to, uploadId, parts);
    },
    async abortMultipart(key, uploadId, { signal } = {}) {
      checkKey(key);
      signal?.throwIfAborted();
      await multipart.abort(key, uploadId);
    },
  };
}

async function openObject(path: string, key: string, range: ByteRange | undefined) {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw isAbsent(error) ? objectNotFound(key) : error;
  }
  try {
    return { file, inside: checkRange(range, (await file.stat()).size) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readInto(file: FileHandle, bytes: Uint8Array, offset: number, key: string): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const { bytesRead } = await file.read(bytes, at, bytes.length - at, offset + at);
    if (bytesRead === 0) {
      throw new DecantError('INTERNAL', 'The file of an object became shorter while it was read.', {
        details: { key, offset: offset + at },
      });
    }
    at += bytesRead;
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

function isAbsent(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR';
}

/** Objects under a folder in byte order of their keys. `before` and `prefix` hold one character a byte. */
async function* walk(
  folder: string,
  before: string,
  prefix: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<ObjectInfo, void> {
  signal?.throwIfAborted();
  const names = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    if (isAbsent(error)) return [];
    throw error;
  });
  const entries = names
    .map((entry) => ({ name: entry.name, parsed: parseName(entry.name, entry.isDirectory()) }))
    .flatMap(({ name, parsed }) => (parsed === undefined ? [] : [{ name, ...parsed, key: before + parsed.text }]))
    .filter(({ kind, key }) => key.startsWith(prefix) || (kind === 'folder' && prefix.startsWith(key)))
    // No folder's key is the beginning of a sibling's key, so this order is the order of all keys below.
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  for (const { name, kind, key } of entries) {
    const path = join(folder, name);
    if (kind === 'folder') {
      yield* walk(path, key, prefix, signal);
    } else {
      signal?.throwIfAborted();
      const sizeBytes = await sizeOf(path);
      if (sizeBytes !== undefined) yield { key: Buffer.from(key, 'latin1').toString('utf8'), sizeBytes };
    }
  }
}
