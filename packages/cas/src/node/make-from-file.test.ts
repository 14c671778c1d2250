import { utimesSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, readlink, realpath, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

import { PAGE_BYTES, type ChunkId } from '@decant/core';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

import { chunkImage } from '../chunk/chunker.ts';
import { createImageReader } from '../image/image-reader.ts';
import { encodeManifest, type ManifestStretch } from '../manifest/manifest-builder.ts';
import { flipBit } from '../test-data.ts';
import { makeFromFile, type MakeOptions } from './make-from-file.ts';
import { loadNodeHashProvider } from './node-hash-provider.ts';
import { openPackDirectory } from './pack-directory.ts';
import { edgyImage, extent, piecesOf, writeSparse } from './test-image.ts';
import { createZstdCodec } from './zstd-codec.ts';

const hash = await loadNodeHashProvider();
const codec = createZstdCodec();
const { extents, sizeBytes } = edgyImage();
let folder: string;
let file: string;
let number = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-make-'));
  file = join(folder, 'image');
  await writeSparse(file, extents, sizeBytes);
});
afterAll(() => rm(folder, { recursive: true }));

const newStore = () => join(folder, `store-${number++}`);
const make = (options: Partial<MakeOptions> & { store: string }) =>
  makeFromFile({ file, layout: 'foreign', workers: 2, fsync: false, ...options });

async function allIds(store: string): Promise<string[]> {
  const { rows } = await openPackDirectory(store, { hash });
  const ids = Array.from({ length: rows.length / 56 }, (_, i) => Buffer.from(rows.subarray(i * 56, i * 56 + 32)));
  return ids.map((id) => id.toString('hex')).sort();
}

describe('makeFromFile', () => {
  it('makes the manifest of chunkImage and stores each chunk once, with any number of workers', async () => {
    const stretches: ManifestStretch[] = [];
    for await (const stretch of chunkImage(piecesOf(extents, sizeBytes), { layout: 'foreign', hash })) {
      stretches.push(stretch.type === 'hole' ? stretch : { ...stretch, bytes: stretch.bytes.slice() });
    }
    const facts = { format: 'raw', layout: 'foreign', architecture: null, configDigest: new Uint8Array(32) } as const;
    const expected = encodeManifest(facts, stretches, hash);
    const ids = [...new Set(stretches.flatMap((stretch) => ('id' in stretch ? [stretch.id] : [])))].sort();
    for (const [workers, level] of [
      [1, 'raw'],
      [2, 1],
    ] as const) {
      const store = newStore();
      const made = await make({ store, workers, codec: level });
      expect(made.manifest.bytes).toEqual(expected);
      expect(new Uint8Array(await readFile(made.manifestFile))).toEqual(expected);
      expect(await allIds(store)).toEqual(ids);
      expect(made).toMatchObject({ newChunks: ids.length, newBytes: made.manifest.chunkBytes });
      if (level === 'raw') expect(made.storedBytes).toBe(made.newBytes);
      else expect(made.storedBytes).toBeLessThan(made.newBytes);
      expect(await readdir(join(store, 'tmp'))).toEqual([]);
    }
  });

  it('can be read back byte for byte, and stores nothing again', async () => {
    const store = newStore();
    const { manifest } = await make({ store, fsync: true });
    const packs = await readdir(join(store, 'packs'));
    const again = await make({ store, codec: 'raw' });
    expect(again).toMatchObject({ newChunks: 0, newBytes: 0, storedBytes: 0, packs: 0 });
    expect(await readdir(join(store, 'packs'))).toEqual(packs);
    const reader = createImageReader(manifest, await openPackDirectory(store, { hash }), { hash, codec });
    for (const { page, bytes } of extents) {
      expect(await reader.read(page * PAGE_BYTES, bytes.length)).toEqual(bytes);
    }
  });

  it('stores only what changed, and nothing that the caller knows', async () => {
    const store = newStore();
    const first = await make({ store });
    const changed = join(folder, 'changed');
    await writeSparse(changed, [...extents.slice(0, -1), extent(extents.at(-1)!.page, 1, 77)], sizeBytes);
    const second = await make({ store, file: changed });
    expect(second).toMatchObject({ newChunks: 1, newBytes: PAGE_BYTES });
    const known: ChunkId[] = [...first.manifest.chunkIds()];
    expect(await make({ store: newStore(), file: changed, known })).toMatchObject({ newChunks: 1, packs: 1 });
  });

  it('leaves nothing behind when it is aborted, and throws the reason', async () => {
    const store = newStore();
    const stop = new AbortController();
    const reason = new Error('enough');
    const onEvent = (event: { type: string }) => {
      if (event.type === 'stage-progress') stop.abort(reason);
    };
    await expect(make({ store, onEvent, signal: stop.signal })).rejects.toBe(reason);
    expect(await readdir(store, { recursive: true })).toEqual(['tmp']);
    await expect(make({ store, signal: stop.signal })).rejects.toBe(reason);
  });

  it.skipIf(process.platform !== 'linux')('flushes packs, then the manifest before it has its name', async () => {
    const small = join(folder, 'small');
    await writeSparse(small, [extent(0, 50, 5)], 60 * PAGE_BYTES);
    await using some = await open(small);
    const proto = Object.getPrototypeOf(some) as typeof some;
    const sync: () => Promise<void> = Reflect.get(proto, 'sync');
    const flushed: string[] = [];
    const spy = vi.spyOn(proto, 'sync').mockImplementation(async function flush(this: typeof some) {
      flushed.push(await readlink(`/proc/self/fd/${this.fd}`));
      await Reflect.apply(sync, this, []);
    });
    try {
      await make({ store: newStore(), file: small });
      expect(flushed).toEqual([]);
      const store = newStore();
      await make({ store, file: small, fsync: true });
      const real = await realpath(store);
      const named = flushed.map((path) => relative(real, path).replace(/^tmp\/[^/]+\//, 'tmp/*/'));
      expect(named).toEqual(['packs', 'tmp/*/manifest', 'manifests']);
    } finally {
      spy.mockRestore();
    }
  });

  it('refuses a file that changed while it was read, and leaves nothing of it', async () => {
    const changing = join(folder, 'changing');
    await writeSparse(changing, [extent(0, 50, 6)], 60 * PAGE_BYTES);
    const store = newStore();
    const onEvent = (event: { type: string }) => {
      if (event.type === 'stage-progress') utimesSync(changing, 1, 1);
    };
    await expect(make({ store, file: changing, onEvent })).rejects.toMatchObject({ code: 'CAS_FILE_CHANGED' });
    expect(await readdir(store, { recursive: true })).toEqual(['tmp']);
  });

  it('leaves nothing behind when a worker dies', async () => {
    const store = newStore();
    const workerUrl = new URL('data:text/javascript,process.exit(9)');
    await expect(make({ store, workerUrl })).rejects.toMatchObject({ code: 'CAS_WORKER_FAILED' });
    expect(await readdir(store, { recursive: true })).toEqual(['tmp']);
  });

  it('removes what dead processes left, refuses a damaged pack by name', async () => {
    const store = newStore();
    const left = join(store, 'tmp', 'left');
    await mkdir(left, { recursive: true });
    await utimes(left, new Date(), new Date(Date.now() - 2 * 3_600_000));
    await make({ store });
    expect(await readdir(join(store, 'tmp'))).toEqual([]);
    const [name] = await readdir(join(store, 'packs'));
    const path = join(store, 'packs', name!);
    const pack = await readFile(path);
    await writeFile(path, flipBit(pack, (pack.length - 60) * 8));
    const damaged = { code: 'CAS_PACK_INVALID', message: expect.stringContaining(name!) };
    await expect(make({ store })).rejects.toMatchObject(damaged);
  });

  it.each([0, 20, 1.5])('refuses the level %s', async (level) => {
    await expect(make({ store: newStore(), codec: level })).rejects.toThrow(RangeError);
  });

  it.each([0, 65, 1.5])('refuses %s workers', async (workers) => {
    await expect(make({ store: newStore(), workers })).rejects.toThrow(RangeError);
  });
});
