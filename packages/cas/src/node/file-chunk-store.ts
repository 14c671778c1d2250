import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { errnoOf, isChunkId, toDecantError, toHex, type ChunkId } from '@decant/core';

import type { ChunkStore } from '../store/chunk-store.ts';
import type { HashProvider } from '../hash/hash-provider.ts';

export interface FileChunkStoreOptions {
  /** Made when it does not exist; nothing else may be kept in it. Several processes may share it. */
  readonly directory: string;
  /**
   * Bytes of chunks to keep. Other processes' writes are noticed late and those under way not at all, so the
   * directory can pass it by an eighth.
   */
  readonly maxBytes: number;
  readonly hash: HashProvider;
}

/** A chunk used again within this time keeps its old time of access. */
const TOUCH_AFTER_MS = 60_000;
/** Files of writers that died are removed after this time. */
const STALE_TEMPORARY_MS = 60 * 60_000;
/** Eviction goes on until this share of `maxBytes` is left, so that it is not needed at every write. */
const EVICT_TO = 0.9;

/**
 * Plain chunks as files, `ab/cdef…`: written beside and renamed, hashed again whenever they are read. A file that
 * has another length or content is removed and counts as absent. Beyond `maxBytes` the chunks longest unused go.
 */
export function createFileChunkStore(options: FileChunkStoreOptions): ChunkStore {
  const { directory, maxBytes, hash } = options;
  const temporary = join(directory, 'tmp');
  const pathOf = (id: ChunkId) => join(directory, id.slice(0, 2), id.slice(2));
  /** Bytes at the last count, and bytes this store has written since; undefined before the first count. */
  let counted: number | undefined;
  let written = 0;
  let eviction: Promise<void> | undefined;

  const evictIfNeeded = async () => {
    const due = counted === undefined || counted + written > maxBytes || written > maxBytes / 8;
    if (!due) return;
    eviction ??= evict(directory, maxBytes)
      .then((bytes) => {
        counted = bytes;
        written = 0;
      })
      .finally(() => {
        eviction = undefined;
      });
    await eviction;
  };

  return {
    async get(id, plainBytes, { signal } = {}) {
      signal?.throwIfAborted();
      const path = pathOf(id);
      const plain = await readWhole(path, plainBytes);
      if (plain === 'absent') return undefined;
      if (plain !== 'damaged' && toHex(hash.blake3(plain)) === id) return plain;
      await rm(path, { force: true });
      return undefined;
    },
    async put(id, plain, { signal } = {}) {
      signal?.throwIfAborted();
      try {
        const path = pathOf(id);
        const found = await stat(path).catch(absent);
        if (found?.size === plain.length) return;
        const name = join(temporary, `${process.pid}-${randomBytes(8).toString('hex')}`);
        await mkdir(temporary, { recursive: true });
        await mkdir(join(directory, id.slice(0, 2)), { recursive: true });
        try {
          await writeFile(name, plain, { flag: 'wx', signal });
          await rename(name, path);
        } catch (error) {
          await rm(name, { force: true });
          throw error;
        }
        written += plain.length;
        await evictIfNeeded();
      } catch (error) {
        signal?.throwIfAborted();
        throw toDecantError(error);
      }
    },
    async has(ids, { signal } = {}) {
      const there = new Set<ChunkId>();
      for (const id of ids) {
        signal?.throwIfAborted();
        if ((await stat(pathOf(id)).catch(absent)) !== undefined) there.add(id);
      }
      return there;
    },
  };
}

function absent(error: unknown): undefined {
  if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
  throw error;
}

/** The bytes of a file that must have exactly `lengthBytes`; also marks it as used. */
async function readWhole(path: string, lengthBytes: number): Promise<Uint8Array | 'absent' | 'damaged'> {
  const file = await open(path, 'r').catch(absent);
  if (file === undefined) return 'absent';
  try {
    const { size, atimeMs, mtime } = await file.stat();
    if (size !== lengthBytes) return 'damaged';
    const bytes = new Uint8Array(lengthBytes);
    for (let done = 0; done < lengthBytes;) {
      const { bytesRead } = await file.read(bytes, done, lengthBytes - done, done);
      if (bytesRead === 0) return 'damaged';
      done += bytesRead;
    }
    // Mounts with noatime or relatime do not record it themselves. A file of another user keeps its old time.
    if (Date.now() - atimeMs > TOUCH_AFTER_MS) await file.utimes(new Date(), mtime).catch(() => undefined);
    return bytes;
  } catch (error) {
    // A sector that cannot be read.
    if (errnoOf(error) === 'EIO') return 'damaged';
    throw error;
  } finally {
    await file.close();
  }
}

/** Steps of the histogram of ages: 64 to each doubling of the milliseconds, up to 2^42 ms. */
const AGE_STEPS = 64 * 42;

function ageStep(ageMs: number): number {
  return Math.min(AGE_STEPS - 1, Math.floor(64 * Math.log2(Math.max(1, ageMs))));
}

/**
 * Removes the chunks longest unused until `EVICT_TO` of `maxBytes` is left, when there are more than that; returns the
 * bytes left. Two passes over the directory and a histogram of ages, so memory does not grow with it.
 */
async function evict(directory: string, maxBytes: number): Promise<number> {
  const now = Date.now();
  await removeStaleTemporaries(join(directory, 'tmp'), now);
  const bytesByAge = new Float64Array(AGE_STEPS);
  let total = 0;
  for await (const { sizeBytes, atimeMs } of chunkFiles(directory)) {
    const step = ageStep(now - atimeMs);
    bytesByAge[step] = bytesByAge[step]! + sizeBytes;
    total += sizeBytes;
  }
  if (total <= maxBytes) return total;
  const keep = maxBytes * EVICT_TO;
  // Everything older than this step goes, and of the step itself as much as is needed.
  let step = AGE_STEPS - 1;
  let older = 0;
  while (step > 0 && total - older - bytesByAge[step]! > keep) older += bytesByAge[step--]!;
  for await (const { path, sizeBytes, atimeMs } of chunkFiles(directory)) {
    const age = ageStep(now - atimeMs);
    const goes = age > step || (age === step && total - older > keep);
    if (!goes) continue;
    await rm(path, { force: true });
    total -= sizeBytes;
    if (age > step) older -= sizeBytes;
  }
  return total;
}

async function* chunkFiles(directory: string): AsyncGenerator<{ path: string; sizeBytes: number; atimeMs: number }> {
  for (const two of (await readdir(directory).catch(absent)) ?? []) {
    if (!/^[0-9a-f]{2}$/.test(two)) continue;
    for (const name of (await readdir(join(directory, two)).catch(absent)) ?? []) {
      if (!isChunkId(two + name)) continue;
      const path = join(directory, two, name);
      const found = await stat(path).catch(absent);
      if (found !== undefined) yield { path, sizeBytes: found.size, atimeMs: found.atimeMs };
    }
  }
}

async function removeStaleTemporaries(directory: string, now: number): Promise<void> {
  for (const name of (await readdir(directory).catch(absent)) ?? []) {
    const path = join(directory, name);
    const found = await stat(path).catch(absent);
    if (found !== undefined && now - found.mtimeMs > STALE_TEMPORARY_MS) await rm(path, { force: true });
  }
}
