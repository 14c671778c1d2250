import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, open, readdir, rm, stat, utimes, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { ObjectStore } from '@decant/core';
import { objectStoreContract } from '@decant/core/contract';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { createFileObjectStore } from './file-store.ts';

objectStoreContract('files', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'decant-store-'));
  return {
    store: createFileObjectStore({ directory, fsync: 'never' }),
    second: createFileObjectStore({ directory, fsync: 'never' }),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
});

describe('createFileObjectStore', () => {
  let directory: string;
  let store: ObjectStore;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'decant-store-'));
    store = createFileObjectStore({ directory, fsync: 'always' });
  });
  afterEach(() => rm(directory, { recursive: true }));

  const filesIn = async (...names: string[]): Promise<string[]> => {
    const folder = join(directory, ...names);
    const found = await readdir(folder, { recursive: true, withFileTypes: true });
    return found
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
  };

  it('leaves nothing but the object behind, and no folders once it is deleted', async () => {
    const id = await store.createMultipart('ns/a/up');
    const parts = await Promise.all([1, 2, 3].map((n) => store.putPart('ns/a/up', id, n, randomBytes(1000))));
    await store.completeMultipart('ns/a/up', id, parts);
    const dropped = await store.createMultipart('ns/a/dropped');
    await store.putPart('ns/a/dropped', dropped, 1, randomBytes(10));
    await store.abortMultipart('ns/a/dropped', dropped);
    expect(await filesIn('objects')).toEqual(['ns/a/up@']);
    for (const area of ['uploads', 'joining', 'temp']) expect(await readdir(join(directory, area))).toEqual([]);
    await store.delete('ns/a/up');
    expect(await readdir(join(directory, 'objects'))).toEqual([]);
  });

  it('makes durable what must survive a loss of power, and nothing else', async () => {
    const probe = await open(join(directory, 'probe'), 'w');
    const prototype = Object.getPrototypeOf(probe) as FileHandle;
    await probe.close();
    await rm(join(directory, 'probe'));
    const synced = [vi.spyOn(prototype, 'datasync'), vi.spyOn(prototype, 'sync')];
    try {
      const some = createFileObjectStore({ directory, fsync: (key) => key.startsWith('lasting/') });
      // Its own folders are made durable whatever is put into them.
      await some.put('lasting/first', randomBytes(10));
      const countOf = async (key: string) => {
        for (const spy of synced) spy.mockClear();
        await some.put(`${key}/whole`, randomBytes(10));
        const id = await some.createMultipart(`${key}/parts`);
        await some.completeMultipart(`${key}/parts`, id, [await some.putPart(`${key}/parts`, id, 1, randomBytes(10))]);
        expect((await some.get(`${key}/parts`)).length).toBe(10);
        return synced.map((spy) => spy.mock.calls.length);
      };
      expect(await countOf('passing')).toEqual([0, 0]);
      for (const count of await countOf('lasting')) expect(count).toBeGreaterThanOrEqual(2);
    } finally {
      for (const spy of synced) spy.mockRestore();
    }
  });

  it('can be read by its owner alone, whatever the umask is', async () => {
    const before = process.umask(0);
    try {
      await store.put('ns/a/whole', randomBytes(10));
      const id = await store.createMultipart('ns/b/parts');
      const part = await store.putPart('ns/b/parts', id, 1, randomBytes(10));
      const modes = async () => {
        const entries = await readdir(directory, { recursive: true, withFileTypes: true });
        const found = entries.map(async (entry) => {
          const { mode } = await stat(join(entry.parentPath, entry.name));
          return `${entry.isFile() ? 'file' : 'folder'} ${(mode & 0o777).toString(8)}`;
        });
        return new Set(await Promise.all(found));
      };
      expect(await modes()).toEqual(new Set(['folder 700', 'file 600']));
      await store.completeMultipart('ns/b/parts', id, [part]);
      expect(await modes()).toEqual(new Set(['folder 700', 'file 600']));
    } finally {
      process.umask(before);
    }
  });

  it('streams a value larger than what it may hold in memory', async () => {
    const piece = randomBytes(1024 * 1024);
    const hash = createHash('sha256');
    const before = process.memoryUsage();
    let most = 0;
    async function* body() {
      for (let index = 0; index < 192; index++) {
        piece[0] = index;
        hash.update(piece);
        const { arrayBuffers } = process.memoryUsage();
        most = Math.max(most, arrayBuffers - before.arrayBuffers);
        await Promise.resolve();
        yield piece;
      }
    }
    const fast = createFileObjectStore({ directory, fsync: 'never' });
    await fast.put('big', body());
    const read = createHash('sha256');
    for await (const bytes of fast.stream('big')) read.update(bytes);
    expect(read.digest('hex')).toBe(hash.digest('hex'));
    expect(most).toBeLessThan(64 * 1024 * 1024);
  });

  it('ignores what a killed process left, and removes it after a day', async () => {
    await store.put('k', Buffer.from('value'));
    const old = join(directory, 'temp', 'a'.repeat(32));
    const fresh = join(directory, 'temp', 'b'.repeat(32));
    for (const path of [old, fresh]) await writeFile(path, 'half of something');
    const days = (count: number) => new Date(Date.now() - count * 24 * 3600 * 1000);
    await utimes(old, days(2), days(2));
    const forgotten = await store.createMultipart('left');
    await utimes(join(directory, 'uploads', forgotten), days(9), days(9));
    const waiting = await store.createMultipart('waiting');
    await utimes(join(directory, 'uploads', waiting), days(6), days(6));

    const next = createFileObjectStore({ directory, fsync: 'never' });
    const listed = [];
    for await (const info of next.list('')) listed.push(info);
    expect(listed).toEqual([{ key: 'k', sizeBytes: 5 }]);
    await next.put('again', Buffer.from('x'));
    await expect.poll(() => readdir(join(directory, 'uploads'))).toEqual([waiting]);
    await expect.poll(() => readdir(join(directory, 'temp'))).toEqual(['b'.repeat(32)]);
  });

  it('ignores files it did not write', async () => {
    await store.put('k', Buffer.from('x'));
    await writeFile(join(directory, 'objects', 'README'), 'hello');
    await writeFile(join(directory, 'objects', 'Upper@'), 'hello');
    const listed = [];
    for await (const { key } of store.list('')) listed.push(key);
    expect(listed).toEqual(['k']);
  });
});
