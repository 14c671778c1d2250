import { createHash, randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readlink,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
  type FileHandle,
} from 'node:fs/promises';
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

  /** What all open files have in common. */
  const handlePrototype = async (): Promise<FileHandle> => {
    const probe = await open(join(directory, 'probe'), 'w');
    await probe.close();
    await rm(join(directory, 'probe'));
    return Object.getPrototypeOf(probe) as FileHandle;
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
    const prototype = await handlePrototype();
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
      const [files, folders] = await countOf('lasting');
      // The value; the key of the upload, its part, what was joined of it, and the answer.
      expect(files).toBeGreaterThanOrEqual(5);
      // Of each of the two the folder that holds it, and those above up to the store's own: any of them may be new.
      expect(folders).toBeGreaterThanOrEqual(6);
      await some.put('lasting/deeper/one', randomBytes(10));
      for (const spy of synced) spy.mockClear();
      await some.delete('lasting/deeper/one');
      expect(synced[1]!.mock.calls.length).toBeGreaterThanOrEqual(1);
    } finally {
      for (const spy of synced) spy.mockRestore();
    }
  });

  it('goes on where the system takes or gives less than it was asked to', async () => {
    const prototype = await handlePrototype();
    type Transfer = (bytes: Uint8Array, offset: number, length: number, position?: number) => Promise<unknown>;
    const some = (['read', 'write'] as const).map((name) => {
      const whole = prototype[name] as unknown as Transfer;
      return vi.spyOn(prototype, name).mockImplementation(function (this: FileHandle, ...args: unknown[]) {
        const [bytes, offset, length, position] = args as Parameters<Transfer>;
        return whole.call(this, bytes, offset, Math.min(length, 777), position) as never;
      });
    });
    try {
      const bytes = randomBytes(10_000);
      await store.put('k', bytes);
      const id = await store.createMultipart('joined');
      const parts = await Promise.all([1, 2].map((part) => store.putPart('joined', id, part, bytes)));
      await store.completeMultipart('joined', id, parts);
      for (const spy of some) expect(spy.mock.calls.length).toBeGreaterThan(0);
      expect(Buffer.from(await store.get('k')).equals(bytes)).toBe(true);
      const pieces: Uint8Array[] = [];
      for await (const piece of store.stream('joined')) pieces.push(piece);
      expect(Buffer.concat(pieces).equals(Buffer.concat([bytes, bytes]))).toBe(true);
    } finally {
      for (const spy of some) spy.mockRestore();
    }
  });

  it.skipIf(process.platform !== 'linux')(
    'closes what it opened to read, also when that fails or is given up, and notices a file that gets shorter',
    async () => {
      await store.put('k', randomBytes(200_000));
      const path = join(directory, 'objects', 'k@');
      const open = async () => {
        const links = (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''));
        return (await Promise.all(links)).filter((target) => target === path).length;
      };
      await store.get('k');
      expect(await open()).toBe(0);
      await expect(store.get('k', { range: { offset: 1, lengthBytes: 200_000 } })).rejects.toThrow(RangeError);
      expect(await open()).toBe(0);
      for await (const piece of store.stream('k')) {
        expect(piece.length).toBeGreaterThan(0);
        expect(await open()).toBe(1);
        break;
      }
      expect(await open()).toBe(0);
      const prototype = await handlePrototype();
      const whole = Reflect.get(prototype, 'stat') as () => Promise<Stats>;
      const shrinking = vi.spyOn(prototype, 'stat').mockImplementation(async function (this: FileHandle) {
        const info = await whole.call(this);
        await truncate(path, 100_000);
        return info;
      });
      try {
        await expect(store.get('k')).rejects.toMatchObject({ code: 'INTERNAL' });
      } finally {
        shrinking.mockRestore();
      }
      expect(await open()).toBe(0);
    },
  );

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

  it('leaves nothing of a value that fails on its way in, or that has no place to go', async () => {
    const failure = new Error('the source broke');
    async function* broken() {
      yield randomBytes(10);
      await Promise.resolve();
      throw failure;
    }
    await expect(store.put('k', broken())).rejects.toBe(failure);
    const id = await store.createMultipart('k');
    await expect(store.putPart('k', id, 1, broken())).rejects.toBe(failure);
    const reason = new Error('enough');
    await expect(store.putPart('k', id, 1, broken(), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await writeFile(join(directory, 'objects', 'taken'), 'a file of somebody else');
    await expect(store.put('taken/k', randomBytes(10))).rejects.toThrow(/EEXIST|ENOTDIR/);
    expect(await readdir(join(directory, 'temp'))).toEqual([]);
    expect(await store.head('k')).toBeUndefined();
    // The upload is dropped while a part is on its way in.
    async function* dropping() {
      yield randomBytes(10);
      await store.abortMultipart('k', id);
    }
    await expect(store.putPart('k', id, 1, dropping())).rejects.toMatchObject({ code: 'UPLOAD_INVALID' });
    expect(await readdir(join(directory, 'temp'))).toEqual([]);
  });

  it('knows an upload by its id alone, not by another way to its folder', async () => {
    const id = await store.createMultipart('k');
    const parts = [await store.putPart('k', id, 1, randomBytes(10))];
    for (const other of [`../uploads/${id}`, `./${id}`, `${id}/`, `${id}/.`, '', '.', id.toUpperCase() + '/']) {
      await expect(store.putPart('k', other, 1, randomBytes(10))).rejects.toMatchObject({ code: 'UPLOAD_INVALID' });
      await expect(store.completeMultipart('k', other, parts)).rejects.toMatchObject({ code: 'UPLOAD_INVALID' });
      await store.abortMultipart('k', other);
    }
    expect(await store.completeMultipart('k', id, parts)).toEqual({ key: 'k', sizeBytes: 10 });
  });

  it('gives the answer again that a completion gave before it was killed', async () => {
    const id = await store.createMultipart('k');
    const parts = [await store.putPart('k', id, 1, randomBytes(10))];
    const answer = await store.completeMultipart('k', id, parts);
    await mkdir(join(directory, 'joining', id));
    await writeFile(join(directory, 'joining', id, 'key'), 'k');
    expect(await store.completeMultipart('k', id, parts)).toEqual(answer);
    const others = [{ ...parts[0]!, etag: '0'.repeat(64) }];
    await expect(store.completeMultipart('k', id, others)).rejects.toMatchObject({ code: 'CONFLICT', retryable: true });
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
    for (const [name, age] of [
      ['old', 2],
      ['fresh', 0],
    ] as const) {
      await mkdir(join(directory, 'joining', name));
      await writeFile(join(directory, 'completed', name), '{}');
      for (const area of ['joining', 'completed']) await utimes(join(directory, area, name), days(age), days(age));
    }
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
    for (const area of ['joining', 'completed']) {
      await expect.poll(() => readdir(join(directory, area))).toEqual(['fresh']);
    }
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
