import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { BuildRequest } from './driver.ts';
import { isLoopback, writeRegistriesConf } from './registries-conf.ts';
import { imageIds, isReplaced, staleImages } from './storage-cache.ts';
import { markedContainers, newBuildMark, ownerIsGone } from './storage-containers.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'decant-storage-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const context: BuildRequest['context'] = {
  dockerfile: { displayPath: 'Dockerfile', bytes: new TextEncoder().encode('FROM a\n') },
  materialize: () => Promise.resolve(),
};

describe('marks of buildah containers', () => {
  it('say whether their process still runs', async () => {
    const own = await newBuildMark();
    expect(own).toMatch(/^decant-build-\d+-\d+-[0-9a-f]{8}$/);
    expect(await ownerIsGone(own)).toBe(false);
    expect(await ownerIsGone(own.replace(/-\d+(-[0-9a-f]{8})$/, '-1$1'))).toBe(true);
    expect(await ownerIsGone('decant-build-4194305-77-00000000')).toBe(true);
  });

  it('are found in the records of a storage, whatever else lies there', async () => {
    const mark = await newBuildMark();
    const id = 'a'.repeat(64);
    const containers = join(directory, 'overlay-containers');
    for (const name of [id, 'b'.repeat(64), 'c'.repeat(64)])
      await mkdir(join(containers, name, 'userdata'), { recursive: true });
    await writeFile(
      join(containers, id, 'userdata', 'buildah.json'),
      `{"CommonBuildOpts":{"Secrets":["id=${mark},src=/dev/null"]}}`,
    );
    await writeFile(join(containers, 'b'.repeat(64), 'userdata', 'buildah.json'), '{"CommonBuildOpts":{"Secrets":[]}}');
    await writeFile(join(containers, 'containers.json'), '[]');
    expect(await markedContainers(directory, 'overlay')).toEqual([{ id, mark }]);
    expect(await markedContainers(directory, 'vfs')).toEqual([]);
  });
});

describe('registries.conf', () => {
  const withConf = async (name: string, text: string, from = 'a') => {
    const home = join(directory, name);
    await mkdir(join(home, '.config/containers'), { recursive: true });
    await writeFile(join(home, '.config/containers/registries.conf'), text);
    const bytes = new TextEncoder().encode(`FROM ${from}\n`);
    return writeRegistriesConf(
      home,
      { context: { ...context, dockerfile: { displayPath: 'D', bytes } } },
      { HOME: home },
    );
  };
  const written = (variables: Readonly<Record<string, string>>) =>
    readFile(variables['CONTAINERS_REGISTRIES_CONF']!, 'utf8');

  it('takes short names from Docker Hub where no registry is configured for them', async () => {
    const text = await written(
      await withConf('a', '# unqualified-search-registries = ["x"]\n[[registry]]\nlocation = "y"\n'),
    );
    expect(text).toMatch(/^unqualified-search-registries = \["docker.io"\]\n#.*\n\[\[registry\]\]/);
  });

  it('leaves what the configuration says', async () => {
    expect(await withConf('b', 'unqualified-search-registries = ["x"]\n')).toEqual({});
    const file = join(directory, 'given.conf');
    await writeFile(file, '');
    expect(await writeRegistriesConf(directory, { context }, { CONTAINERS_REGISTRIES_CONF: file })).toEqual({});
  });

  it('allows plain HTTP with a registry on this machine, as docker does, unless it is configured', async () => {
    const own = 'unqualified-search-registries = ["x"]\n';
    const text = await written(await withConf('c', own, '127.0.0.1:5000/a'));
    expect(text).toBe(`${own}\n[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n`);
    const known = `${own}[[registry]]\nlocation = "127.0.0.1:5000"\n`;
    expect(await withConf('d', known, '127.0.0.1:5000/a')).toEqual({});
    expect(await withConf('e', own, 'reg.example:5000/a')).toEqual({});
    // The older form cannot take the tables of the newer one.
    expect(await withConf('f', "[registries.search]\nregistries = ['x']\n", '127.0.0.1:5000/a')).toEqual({});
    expect(['localhost:1', '127.9.9.9', '[::1]:5000'].map(isLoopback)).toEqual([true, true, true]);
    expect(['localhost', '128.0.0.1', '127.0.0.1.evil.example', 'localhost.evil:1'].map(isLoopback)).toEqual(
      Array.from({ length: 4 }, () => false),
    );
  });
});

describe('the cache of a storage', () => {
  const entry = (created: string, created_by: string) => ({ created, created_by });
  const base = entry('1', 'ADD base');

  it('has a replaced result when the steps are the same and the times are not', () => {
    expect(isReplaced([base, entry('2', 'RUN a')], [base, entry('3', 'RUN a')])).toBe(true);
    expect(isReplaced([base, entry('2', 'RUN a')], [base, entry('2', 'RUN a')])).toBe(false);
    expect(isReplaced([base, entry('2', 'RUN a')], [base, entry('3', 'RUN b')])).toBe(false);
    expect(isReplaced([base], [base, entry('3', 'RUN b')])).toBe(false);
    expect(isReplaced([], [])).toBe(false);
  });

  it('is read from its records, whatever else lies there', async () => {
    const images = join(directory, 'storage/overlay-images');
    const put = async (letter: string, history: unknown) => {
      const id = letter.repeat(64);
      await mkdir(join(images, id), { recursive: true });
      await writeFile(
        join(images, id, `=${Buffer.from(`sha256:${id}`).toString('base64')}`),
        JSON.stringify({ history }),
      );
      return id;
    };
    const root = await put('a', [base]);
    const old = await put('b', [base, entry('2', 'RUN a')]);
    const longer = await put('c', [base, entry('2', 'RUN a'), entry('2', 'RUN b')]);
    const named = await put('d', [base, entry('2', 'RUN c')]);
    const fresh = [
      await put('e', [base, entry('5', 'RUN a'), entry('5', 'RUN b')]),
      await put('f', [base, entry('5', 'RUN a')]),
      await put('0', [base, entry('5', 'RUN c')]),
      // Of another build at the same time: it replaces what was before, and no new one.
      await put('1', [base, entry('6', 'RUN a')]),
    ];
    const list = [
      ...[root, old, longer, ...fresh, '9'.repeat(64)].map((id) => ({ id })),
      { id: named, names: ['localhost/app:1'] },
      { id: '../../etc' },
      { names: 7 },
    ];
    await writeFile(join(images, 'images.json'), JSON.stringify(list));
    const storage = join(directory, 'storage');
    expect((await imageIds(storage, 'overlay')).size).toBe(9);
    const before = new Set([root, old, longer, named]);
    expect(await staleImages(storage, 'overlay', before)).toEqual({
      removable: [longer, old],
      kept: ['localhost/app:1'],
    });
    expect(await staleImages(storage, 'vfs', before)).toEqual({ removable: [], kept: [] });
    await writeFile(join(images, 'images.json'), 'not json');
    expect(await imageIds(storage, 'overlay')).toEqual(new Set());
  });
});
