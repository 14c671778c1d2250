import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { isDecantError } from '@decant/core';
import { afterEach, describe, expect, it, vi } from 'vitest';

import { chunkStoreContract } from '../store/chunk-store.contract.ts';
import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { chunkOf, randomPages } from '../test-data.ts';
import { createFileChunkStore } from './file-chunk-store.ts';
import { openFileRandomAccess } from './file-random-access.ts';

const hash = await loadHashProvider();
const folders: string[] = [];

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'decant-chunks-'));
  folders.push(path);
  return path;
}

afterEach(async () => {
  for (const path of folders.splice(0)) await rm(path, { recursive: true, force: true });
});

const chunk = (seed: number) => chunkOf(randomPages(seed, 1), hash);
const pathIn = (directory: string, id: string) => join(directory, id.slice(0, 2), id.slice(2));

describe('the chunk store in files', () => {
  chunkStoreContract(async (maxBytes) => createFileChunkStore({ directory: await folder(), maxBytes, hash }));

  it('is found again by another store and leaves nothing but chunks', async () => {
    const directory = join(await folder(), 'made', 'when needed');
    const a = chunk(1);
    await createFileChunkStore({ directory, maxBytes: 2 ** 20, hash }).put(a.id, a.plain);
    expect(await readFile(pathIn(directory, a.id))).toEqual(Buffer.from(a.plain));
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
    const other = createFileChunkStore({ directory, maxBytes: 2 ** 20, hash });
    expect(await other.get(a.id, 4096)).toEqual(a.plain);
  });

  it('removes a damaged file and takes the chunk again', async () => {
    const directory = await folder();
    const store = createFileChunkStore({ directory, maxBytes: 2 ** 20, hash });
    const a = chunk(2);
    const damages = [
      (path: string) => writeFile(path, randomPages(99, 1)),
      (path: string) => truncate(path, 100),
      (path: string) => truncate(path, 0),
    ];
    for (const damage of damages) {
      await store.put(a.id, a.plain);
      await damage(pathIn(directory, a.id));
      expect(await store.get(a.id, 4096)).toBeUndefined();
      expect(await store.has([a.id])).toEqual(new Set());
    }
    await store.put(a.id, a.plain);
    expect(await store.get(a.id, 4096)).toEqual(a.plain);
    // Of another length: written again without having been read.
    await truncate(pathIn(directory, a.id), 4000);
    await store.put(a.id, a.plain);
    expect(await store.get(a.id, 4096)).toEqual(a.plain);
  });

  it('takes a sector that cannot be read for damage, and leaves no file open', async () => {
    const directory = await folder();
    const store = createFileChunkStore({ directory, maxBytes: 2 ** 20, hash });
    const a = chunk(5);
    await store.put(a.id, a.plain);
    for (let i = 0; i < 3; i++) expect(await store.get(a.id, 4096)).toEqual(a.plain);
    await using file = await open(pathIn(directory, a.id));
    const read = vi.spyOn(Object.getPrototypeOf(file) as typeof file, 'read');
    const failing = (code: string) => read.mockRejectedValueOnce(Object.assign(new Error(code), { code }));
    try {
      failing('ENOMEM');
      await expect(store.get(a.id, 4096)).rejects.toThrow('ENOMEM');
      expect(await store.has([a.id])).toEqual(new Set([a.id]));
      failing('EIO');
      expect(await store.get(a.id, 4096)).toBeUndefined();
      expect(await store.has([a.id])).toEqual(new Set());
    } finally {
      read.mockRestore();
    }
    await file.close();
    if (process.platform !== 'linux') return;
    const links = (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''));
    const real = await realpath(directory);
    expect((await Promise.all(links)).filter((path) => path.startsWith(real))).toEqual([]);
  });

  it('leaves no temporary file of a chunk that it could not keep', async () => {
    const directory = await folder();
    const store = createFileChunkStore({ directory, maxBytes: 2 ** 20, hash });
    const a = chunkOf(randomPages(6, 3), hash);
    // In its place is something that no file can replace.
    await mkdir(join(pathIn(directory, a.id), 'folder'), { recursive: true });
    const failure: unknown = await store.put(a.id, a.plain).catch((error: unknown) => error);
    expect(isDecantError(failure)).toBe(true);
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
    const b = chunk(7);
    const stop = new AbortController();
    const reason = new Error('enough');
    const writing = store.put(b.id, b.plain, { signal: stop.signal });
    stop.abort(reason);
    await expect(writing).rejects.toBe(reason);
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
    expect(await store.has([b.id])).toEqual(new Set());
  });

  it('evicts by time of access, which a read renews', async () => {
    const directory = await folder();
    const store = createFileChunkStore({ directory, maxBytes: 10 * 4096, hash });
    const all = Array.from({ length: 10 }, (_, i) => chunk(10 + i));
    for (const [i, { id, plain }] of all.entries()) {
      await store.put(id, plain);
      const used = new Date(Date.now() - (20 - i) * 3_600_000);
      await utimes(pathIn(directory, id), used, used);
    }
    await store.get(all[0]!.id, 4096);
    const extra = chunk(50);
    await store.put(extra.id, extra.plain);
    const gone = all.slice(1, 3).map(({ id }) => id);
    const kept = [all[0]!, ...all.slice(3), extra].map(({ id }) => id);
    expect(await store.has([...gone, ...kept])).toEqual(new Set(kept));
  });

  it('counts what other processes wrote', async () => {
    const directory = await folder();
    const options = { directory, maxBytes: 16 * 4096, hash };
    const stores = [createFileChunkStore(options), createFileChunkStore(options)];
    for (let i = 0; i < 80; i++) {
      const { id, plain } = chunk(200 + i);
      await stores[i % 2]!.put(id, plain);
      let bytes = 0;
      for (const two of await readdir(directory)) {
        if (two === 'tmp') continue;
        for (const name of await readdir(join(directory, two))) bytes += (await stat(join(directory, two, name))).size;
      }
      expect(bytes).toBeLessThanOrEqual(16 * 4096 * (1 + 2 / 8));
    }
  });

  it('removes what dead writers left, not what is being written', async () => {
    const directory = await folder();
    await mkdir(join(directory, 'tmp'));
    for (const [name, age] of [
      ['old', 2 * 3_600_000],
      ['new', 1000],
    ] as const) {
      const path = join(directory, 'tmp', name);
      await writeFile(path, 'x');
      await utimes(path, new Date(), new Date(Date.now() - age));
    }
    const a = chunk(3);
    await createFileChunkStore({ directory, maxBytes: 2 ** 20, hash }).put(a.id, a.plain);
    expect(await readdir(join(directory, 'tmp'))).toEqual(['new']);
  });

  it('bears many writers of the same chunk at once', async () => {
    const directory = await folder();
    const a = chunk(4);
    const store = () => createFileChunkStore({ directory, maxBytes: 2 ** 20, hash });
    await Promise.all(Array.from({ length: 20 }, () => store().put(a.id, a.plain)));
    expect(await store().get(a.id, 4096)).toEqual(a.plain);
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
  });
});

describe('openFileRandomAccess', () => {
  it('reads exactly what is inside', async () => {
    const path = join(await folder(), 'file');
    const bytes = randomPages(1, 3);
    await writeFile(path, bytes);
    await using file = await openFileRandomAccess(path);
    expect(file.sizeBytes).toBe(bytes.length);
    expect(await file.read(5000, 1234)).toEqual(bytes.slice(5000, 6234));
    expect(await file.read(bytes.length, 0)).toHaveLength(0);
    await expect(file.read(bytes.length - 1, 2)).rejects.toThrow(RangeError);
    await expect(file.read(-1, 1)).rejects.toThrow(RangeError);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(file.read(0, 1, { signal })).rejects.toBe(signal.reason);
    await truncate(path, 100);
    await expect(file.read(0, 200)).rejects.toThrow(/cut short/);
  });
});
