import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import {
  busyboxEntries,
  debianBase,
  makeTar,
  temporaryDirectory,
  type TarEntry,
  type TemporaryDirectory,
} from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { decant, decantJson, ROOT, succeed, type DecantOptions, type MadeImage } from './support/decant.ts';
import { layoutOfTars } from './support/layout-of-tars.ts';
import { have, isRoot, tool } from './support/programs.ts';
import { listTree } from './support/tree-listing.ts';

/** A kind of image, made by code. */
interface Family {
  readonly name: string;
  /** Only with DECANT_FAMILIES=all: what takes minutes to make on a fresh machine. */
  readonly long: boolean;
  /** Archives of its layers, lowest first, made in a folder. */
  readonly layers: (folder: string) => Promise<string[]>;
  readonly entries: number;
  /** A command and what it prints. */
  readonly runs: readonly (readonly [command: readonly string[], stdout: RegExp])[];
}

const debian = (...include: string[]) => debianBase({ cacheFolder: join(ROOT, '.cache'), include });

const FAMILIES: readonly Family[] = [
  {
    name: 'a hundred layers',
    long: false,
    layers: hundredLayers,
    entries: 150,
    runs: [
      [['/bin/cat', '/counter'], /^99$/m],
      [['/bin/sh', '-c', 'ls /steps | wc -l'], /^\s*50\n$/],
    ],
  },
  {
    name: 'a file of several GB',
    long: false,
    layers: (folder) => largeFile(folder, 3 * 2 ** 30),
    entries: 10,
    runs: [[['/bin/sh', '-c', 'busybox stat -c %s /large; busybox tail -c 5 /large'], /^3221225472\nlast\n$/]],
  },
  {
    name: 'Debian',
    long: true,
    layers: async () => [await debian()],
    entries: 7000,
    runs: [[['dpkg-query', '--show', '--showformat=${Status}', 'libc6'], /^install ok installed$/]],
  },
  {
    name: 'Debian with systemd',
    long: true,
    layers: async () => [await debian('systemd', 'systemd-sysv', 'dbus')],
    entries: 8000,
    runs: [[['/lib/systemd/systemd', '--version'], /^systemd \d+/]],
  },
  {
    name: 'Debian with node',
    long: true,
    layers: async () => [await debian('nodejs')],
    entries: 8000,
    runs: [[['node', '-e', 'console.log([1, 2].map((n) => n * 2).join(), process.arch)'], /^2,4 \w+$/m]],
  },
  {
    name: 'Debian with python',
    long: true,
    layers: async () => [await debian('python3')],
    entries: 8000,
    runs: [[['python3', '-c', 'import json, ssl, sqlite3; print(json.dumps({"a": 1}))'], /^\{"a": 1\}$/m]],
  },
  {
    name: 'a file of 9 GiB',
    long: true,
    layers: (folder) => largeFile(folder, 9 * 2 ** 30),
    entries: 10,
    runs: [[['/bin/sh', '-c', 'busybox stat -c %s /large; busybox tail -c 5 /large'], /^9663676416\nlast\n$/]],
  },
];

const all = process.env['DECANT_FAMILIES'] === 'all';
const available = isRoot && have('umoci', 'getfattr', 'bwrap', 'nbdfuse', 'busybox');

describe.skipIf(!available).each(FAMILIES.filter(({ long }) => all || !long))(
  '[backend:umoci] [backend:bubblewrap] the family of $name',
  ({ layers, entries, runs }) => {
    let folder: TemporaryDirectory;
    let options: DecantOptions;
    let layout: string;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-');
      options = { home: join(folder.path, 'home'), timeoutMs: 600_000 };
      layout = join(folder.path, 'layout');
      const tars = await layers(folder.path);
      await layoutOfTars(layout, tars, { Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'] });
      await decantJson<MadeImage>(['image', 'import', `oci:${layout}`, '--streaming', '-n', 'family'], options);
    });
    afterAll(() => folder?.[Symbol.asyncDispose]());

    test('the mounted image is the tree that umoci makes of it', async () => {
      const raw = join(folder.path, 'raw');
      const bundle = join(folder.path, 'bundle');
      const target = join(folder.path, 'mounted');
      await succeed(['image', 'export', 'family', '--sparse', raw], options);
      await tool('umoci', ['unpack', '--image', `${layout}:latest`, bundle], { timeoutMs: 600_000 });
      const theirs = await listTree(join(bundle, 'rootfs'));
      await rm(bundle, { recursive: true });
      await mkdir(target);
      await tool('mount', ['-t', 'erofs', '-o', 'ro,loop', raw, target]);
      let ours: string[];
      try {
        ours = await listTree(target);
      } finally {
        await tool('umount', [target]);
      }
      expect(ours.length).toBeGreaterThan(entries);
      const other = new Set(theirs);
      const own = new Set(ours);
      expect(ours.filter((line) => !other.has(line)).slice(0, 20)).toEqual([]);
      expect(theirs.filter((line) => !own.has(line)).slice(0, 20)).toEqual([]);
    });

    test('every chunk of it is found and verified', async () => {
      const verified = await decantJson<{ chunks: number }>(['image', 'verify', 'family'], options);
      expect(verified.chunks).toBeGreaterThan(0);
    });

    test('it runs', async () => {
      for (const [command, stdout] of runs) {
        const result = await decant(['run', 'family', '--', ...command], options);
        expect(result, command.join(' ')).toMatchObject({ status: 0, stdout: expect.stringMatching(stdout) as string });
      }
    });
  },
);

/** Busybox, and 99 layers that each add, replace, remove and change something of those below. */
async function hundredLayers(folder: string): Promise<string[]> {
  const tars: string[] = [];
  const add = async (entries: readonly TarEntry[]) => {
    const path = join(folder, `layer-${tars.length}.tar`);
    await writeFile(path, makeTar(entries));
    tars.push(path);
  };
  await add([{ path: './', type: 'directory' }, ...(await busyboxEntries()), { path: 'steps/', type: 'directory' }]);
  for (let i = 1; i < 100; i++) {
    await add([
      { path: './', type: 'directory', mtimeSeconds: i },
      { path: 'counter', data: `${i}`, mtimeSeconds: i },
      { path: 'steps/', type: 'directory', mode: 0o700 + (i % 8), mtimeSeconds: i },
      { path: `steps/${i}`, data: `step ${i}`, uid: i, gid: 2 * i, mode: 0o600 + i, mtimeSeconds: i },
      // Every second step goes again.
      ...(i % 2 === 1 ? [] : [{ path: `steps/.wh.${i - 1}`, data: '' }]),
      { path: `many/${i}/`, type: 'directory' as const, mtimeSeconds: i },
      { path: `many/${i}/link`, type: 'symlink' as const, linkTarget: `../${i - 1}`, mtimeSeconds: i },
      { path: 'many/', type: 'directory' as const, mtimeSeconds: i },
    ]);
  }
  return tars;
}

/** Busybox, and a file that is mostly hole, with bytes at its start, in its middle and at its end. */
async function largeFile(folder: string, sizeBytes: number): Promise<string[]> {
  const base = join(folder, 'base.tar');
  await writeFile(base, makeTar([{ path: './', type: 'directory' }, ...(await busyboxEntries())]));
  const path = join(folder, 'large');
  await using file = await open(path, 'wx');
  const noise = Buffer.alloc(2 ** 20);
  for (let i = 0; i < noise.length; i += 4) noise.writeUInt32LE(Math.imul(i + 1, 2_654_435_761) >>> 0, i);
  for (const at of [0, Math.floor(sizeBytes / 2) + 5, sizeBytes - 2 * noise.length]) {
    await file.write(noise, 0, noise.length, at);
  }
  await file.write('last\n', sizeBytes - 5);
  await file.sync();
  const tar = join(folder, 'large.tar');
  await tool('tar', ['--create', '--format=pax', '--sparse', `--file=${tar}`, `--directory=${folder}`, 'large']);
  await rm(path);
  return [base, tar];
}
