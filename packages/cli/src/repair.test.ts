import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { MIB } from '@decant/core';
import type { Decant } from '@decant/sdk';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { wire, type Wired } from './wiring.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let folder: string;
let wired: Wired;
let decant: Decant;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-repair-'));
  wired = await wire({ DECANT_HOME: join(folder, 'home'), DECANT_URL: '' });
  ({ decant } = wired);
});
afterEach(async () => {
  await wired[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Bytes that do not compress, the same for the same seed. */
function noise(seed: number, lengthBytes: number): Buffer {
  const parts = Array.from({ length: lengthBytes / 32 }, (_, i) =>
    createHash('sha256').update(`${seed} ${i}`).digest(),
  );
  return Buffer.concat(parts);
}

/** Makes an image of a disk with these bytes. */
async function make(name: string, bytes: Uint8Array) {
  const file = join(folder, `${name}.raw`);
  await writeFile(file, bytes);
  return decant.images.import({ source: `raw:${file}`, name, format: 'cas-streaming' });
}

/** What is at rest; what was staged is being removed meanwhile. */
async function objects(kind: 'packs' | 'manifests' | 'locators' | 'images'): Promise<string[]> {
  const root = join(folder, 'home/objects/objects/ns/default', kind);
  const all = await readdir(root, { recursive: true, withFileTypes: true });
  return all
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted();
}

async function flip(path: string, at: number): Promise<void> {
  const bytes = await readFile(path);
  bytes[at]! ^= 0x10;
  await writeFile(path, bytes);
}

async function contentOf(ref: string): Promise<Buffer> {
  const file = join(folder, `${ref}.out`);
  await decant.images.export({ ref, file, sparse: false });
  return readFile(file);
}

const shared = noise(1, 2 * MIB);
const first = Buffer.concat([shared, noise(2, MIB)]);
const second = Buffer.concat([shared, noise(3, MIB)]);

describe('damage at rest', () => {
  test('of chunks that two images share: found, brought again by an import, and both images are whole', async () => {
    await make('first', first);
    await make('second', second);
    const [pack] = (
      await Promise.all((await objects('packs')).map(async (path) => ({ path, size: (await stat(path)).size })))
    ).toSorted((a, b) => b.size - a.size);
    await flip(pack!.path, 100_000);
    await flip(pack!.path, 1_200_000);
    for (const ref of ['first', 'second', 'first']) {
      await expect(decant.images.verify(ref)).rejects.toMatchObject({
        code: expect.stringMatching(/^CAS_/) as string,
        message: expect.stringContaining(`${ref} is damaged: Chunk `) as string,
        hint: expect.stringContaining('Import or build') as string,
      });
    }
    const again = await make('first', first);
    expect(again.chunks?.new).toBeGreaterThanOrEqual(1);
    expect(again.chunks!.new).toBeLessThan(again.chunks!.total / 2);
    await decant.images.verify('first');
    await decant.images.verify('second');
    expect((await contentOf('first')).equals(first)).toBe(true);
    expect((await contentOf('second')).equals(second)).toBe(true);
    expect((await make('second', second)).chunks).toMatchObject({ new: 0 });
  });

  test('is replaced as well by an import of another image that has the content', async () => {
    await make('first', first);
    const [pack] = await objects('packs');
    await rm(pack!);
    await expect(decant.images.verify('first')).rejects.toMatchObject({ code: 'CAS_CHUNK_MISSING' });
    await make('second', second);
    // What only the first has is still gone.
    await expect(decant.images.verify('first')).rejects.toMatchObject({ code: 'CAS_CHUNK_MISSING' });
    await make('third', first);
    await decant.images.verify('first');
    await decant.images.verify('second');
    expect((await contentOf('first')).equals(first)).toBe(true);
  });

  test('of a pack that would be written the same again', async () => {
    await make('first', first);
    const [pack] = await objects('packs');
    await writeFile(pack!, Buffer.alloc((await stat(pack!)).size));
    await expect(decant.images.verify('first')).rejects.toMatchObject({
      code: expect.stringMatching(/^CAS_/) as string,
    });
    await make('first', first);
    await decant.images.verify('first');
    expect((await contentOf('first')).equals(first)).toBe(true);
  });

  test('of a locator: written again by a verification', async () => {
    await make('first', first);
    const [locator] = await objects('locators');
    const bytes = await readFile(locator!);
    for (const damage of [() => flip(locator!, bytes.length - 20), () => flip(locator!, 3), () => rm(locator!)]) {
      await damage();
      await decant.images.verify('first');
      expect((await readFile(locator!)).equals(bytes)).toBe(true);
    }
  });

  test('of a manifest: found, and written again by an import', async () => {
    await make('first', first);
    const [manifest] = await objects('manifests');
    const bytes = await readFile(manifest!);
    for (const damage of [() => flip(manifest!, 70), () => flip(manifest!, bytes.length - 5), () => rm(manifest!)]) {
      await damage();
      await expect(decant.images.verify('first')).rejects.toMatchObject({
        code: 'CAS_MANIFEST_INVALID',
        hint: expect.stringContaining('mport or build the image again') as string,
      });
      await make('first', first);
      await decant.images.verify('first');
      expect((await readFile(manifest!)).equals(bytes)).toBe(true);
    }
  });
});
