import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { openDockerArchive } from './docker-archive.ts';
import type { OpenImageOptions } from './image.ts';
import { readPlainArchive } from './plain-archive.ts';
import { digestOf } from './testing/make-layout.ts';
import { makeTar, type TarSpec } from './testing/make-tar.ts';
import { failure, gather } from './testing/streams.ts';

const ONE = makeTar([{ path: 'a', data: 'one' }]);
const TWO = makeTar([{ path: 'b', data: 'two' }]);
const hex = (bytes: Uint8Array) => digestOf(bytes).slice(7);
let directory: string;
let file: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'docker-archive-'));
  file = join(directory, 'image.tar');
});
afterEach(() => rm(directory, { recursive: true, force: true }));

function configOf(layers: readonly Uint8Array[], architecture = 'amd64') {
  const rootfs = { type: 'layers', diff_ids: layers.map(digestOf) };
  return Buffer.from(JSON.stringify({ os: 'linux', architecture, config: { Cmd: ['x'] }, rootfs }));
}

async function save(members: readonly TarSpec[], manifest?: unknown): Promise<string> {
  const all =
    manifest === undefined ? members : [...members, { path: 'manifest.json', data: JSON.stringify(manifest) }];
  await writeFile(file, makeTar(all));
  return file;
}

const refused = async (members: readonly TarSpec[], manifest?: unknown, options?: OpenImageOptions) =>
  failure(openDockerArchive(await save(members, manifest), options));

async function contents(options?: OpenImageOptions): Promise<string[]> {
  await using image = await openDockerArchive(file, options);
  const layers = [];
  for (const layer of image.layers) layers.push((await gather(layer.open())).toString('latin1', 512, 515));
  return layers;
}

const config = configOf([ONE, TWO]);
const Config = `${hex(config)}.json`;

describe('openDockerArchive', () => {
  it('reads the classic form, with layers that are links to others', async () => {
    const twice = configOf([ONE, TWO, ONE]);
    await save(
      [
        { path: 'aaa/' },
        { path: 'aaa/layer.tar', data: ONE },
        { path: 'bbb/layer.tar', data: TWO },
        { path: 'ccc/layer.tar', type: '2', link: '../aaa/layer.tar' },
        { path: `${hex(twice)}.json`, data: twice },
      ],
      [
        {
          Config: `${hex(twice)}.json`,
          RepoTags: ['app:1', 'app:2'],
          Layers: ['aaa/layer.tar', 'bbb/layer.tar', 'ccc/layer.tar'],
        },
      ],
    );
    await using image = await openDockerArchive(file);
    expect(image).toMatchObject({
      reference: 'app:1',
      tags: ['app:1', 'app:2'],
      configDigest: digestOf(twice),
      manifestDigest: undefined,
      totalBytes: 2 * ONE.length + TWO.length,
      config: { config: { Cmd: ['x'] } },
    });
    expect(await contents()).toEqual(['one', 'two', 'one']);
  });

  it('reads the modern form: blobs, compressed or not', async () => {
    const stored = gzipSync(TWO);
    await save(
      [
        { path: `blobs/sha256/${hex(ONE)}`, data: ONE },
        { path: `blobs/sha256/${hex(stored)}`, data: stored },
        { path: `blobs/sha256/${hex(config)}`, data: config },
        { path: 'oci-layout', data: '{"imageLayoutVersion":"1.0.0"}' },
        { path: 'index.json', data: '{"schemaVersion":2,"manifests":[]}' },
      ],
      [
        {
          Config: `blobs/sha256/${hex(config)}`,
          RepoTags: null,
          Layers: [`blobs/sha256/${hex(ONE)}`, `blobs/sha256/${hex(stored)}`],
        },
      ],
    );
    await using image = await openDockerArchive(file);
    expect(image.reference).toBeUndefined();
    expect(image.layers.map((layer) => layer.digest)).toEqual([digestOf(ONE), digestOf(stored)]);
    expect(await contents()).toEqual(['one', 'two']);
  });

  it('reads an OCI layout in a tar', async () => {
    const stored = gzipSync(ONE);
    const only = configOf([ONE]);
    const blob = (bytes: Uint8Array) => ({ path: `./blobs/sha256/${hex(bytes)}`, data: bytes });
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(only), size: only.length },
        layers: [
          { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: digestOf(stored), size: stored.length },
        ],
      }),
    );
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    const index = { schemaVersion: 2, manifests: [{ mediaType, digest: digestOf(manifest), size: manifest.length }] };
    await save([
      blob(stored),
      blob(only),
      blob(manifest),
      { path: './oci-layout', data: '{"imageLayoutVersion":"1.0.0"}' },
      { path: './index.json', data: JSON.stringify(index) },
    ]);
    expect(await contents()).toEqual(['one']);
  });

  it('chooses by tag and by platform', async () => {
    const arm = configOf([TWO], 'arm64');
    const amd = configOf([ONE], 'amd64');
    await save(
      [
        { path: '1.tar', data: ONE },
        { path: '2.tar', data: TWO },
        { path: 'arm.json', data: arm },
        { path: 'amd.json', data: amd },
      ],
      [
        { Config: 'amd.json', RepoTags: ['app:1'], Layers: ['1.tar'] },
        { Config: 'arm.json', RepoTags: ['app:2'], Layers: ['2.tar'] },
      ],
    );
    expect(await contents({ tag: 'app:2' })).toEqual(['two']);
    expect(await contents({ tag: '1' })).toEqual(['one']);
    expect(await contents({ tag: 'docker.io/library/app:1' })).toEqual(['one']);
    expect(await failure(openDockerArchive(file))).toBe('OCI_SOURCE_INVALID');
    expect(await failure(openDockerArchive(file, { tag: 'other' }))).toBe('OCI_SOURCE_INVALID');
    const platform = { os: 'linux', architecture: 'arm64' };
    expect(await failure(openDockerArchive(file, { tag: 'app:1', platform }))).toBe('OCI_PLATFORM_MISSING');
    expect(await contents({ tag: 'app:2', platform })).toEqual(['two']);
  });

  const good: TarSpec[] = [
    { path: '1.tar', data: ONE },
    { path: '2.tar', data: TWO },
    { path: Config, data: config },
  ];
  const entry = { Config, RepoTags: ['a:1'], Layers: ['1.tar', '2.tar'] };
  const bad: [string, string, TarSpec[], unknown][] = [
    ['a layer path out of the archive', 'OCI_INVALID', good, [{ ...entry, Layers: ['1.tar', '../../etc/passwd'] }]],
    ['an absolute layer path', 'OCI_INVALID', good, [{ ...entry, Layers: ['1.tar', '/etc/passwd'] }]],
    [
      'a layer that is a link out',
      'OCI_INVALID',
      [...good, { path: '2.tar', type: '2', link: '../../etc/passwd' }],
      [entry],
    ],
    [
      'a layer that is an absolute link',
      'OCI_INVALID',
      [...good, { path: '2.tar', type: '2', link: '/etc/passwd' }],
      [entry],
    ],
    [
      'links in a circle',
      'OCI_INVALID',
      [...good, { path: '2.tar', type: '2', link: 'x' }, { path: 'x', type: '2', link: '2.tar' }],
      [entry],
    ],
    ['a layer path out of the archive and back', 'OCI_INVALID', good, [{ ...entry, Layers: ['1.tar', '../2.tar'] }]],
    [
      'a layer that is a link out and back',
      'OCI_INVALID',
      [...good, { path: 'x', type: '2', link: '../2.tar' }],
      [{ ...entry, Layers: ['1.tar', 'x'] }],
    ],
    ['a layer in whose place a directory stands', 'OCI_INVALID', [...good, { path: '2.tar/' }], [entry]],
    [
      'a layer with holes',
      'OCI_INVALID',
      [
        ...good,
        {
          path: '2.tar',
          data: TWO,
          pax: [
            ['GNU.sparse.size', `${TWO.length}`],
            ['GNU.sparse.map', `0,${TWO.length}`],
          ],
        },
      ],
      [entry],
    ],
    ['a missing layer', 'OCI_INVALID', good.filter(({ path }) => path !== '2.tar'), [entry]],
    ['a missing configuration', 'OCI_INVALID', good.slice(0, 2), [entry]],
    ['a layer that is a device', 'OCI_INVALID', [...good, { path: '2.tar', type: '3', dev: [1, 5] }], [entry]],
    [
      'a configuration that is not its name',
      'OCI_DIGEST_MISMATCH',
      [...good.slice(0, 2), { path: Config, data: configOf([TWO, TWO]) }],
      [entry],
    ],
    ['other numbers of layers and diff ids', 'OCI_INVALID', good, [{ ...entry, Layers: ['1.tar'] }]],
    ['a manifest of another shape', 'OCI_INVALID', good, { Config }],
    ['an empty manifest', 'OCI_SOURCE_INVALID', good, []],
    ['no manifest', 'OCI_SOURCE_INVALID', good, undefined],
  ];
  it.each(bad)('refuses %s', async (_, code, members, manifest) => {
    expect(await refused(members, manifest)).toBe(code);
  });

  it('knows the digest of a compressed layer that is not named by it', async () => {
    const stored = gzipSync(ONE);
    await save([{ path: '1.tar', data: stored }, ...good.slice(1)], [entry]);
    await using image = await openDockerArchive(file);
    expect(image.layers.map(({ digest }) => digest)).toEqual([stored, TWO].map(digestOf));
    expect((await gather(image.layers[0]!.read())).equals(stored)).toBe(true);
    expect(await contents()).toEqual(['one', 'two']);
  });

  it('notices a changed layer when it is read', async () => {
    await save([{ path: '1.tar', data: TWO }, ...good.slice(1)], [entry]);
    await using image = await openDockerArchive(file);
    expect(await failure(gather(image.layers[0]!.open()))).toBe('OCI_DIGEST_MISMATCH');
  });

  it('unpacks an archive that is compressed as a whole, and cleans up after it', async () => {
    await save(good, [entry]);
    const scratchDirectory = join(directory, 'scratch');
    await mkdir(scratchDirectory);
    const plain = await readFile(file);
    for (const bytes of [gzipSync(plain), zstdCompressSync(plain)]) {
      await writeFile(file, bytes);
      await using image = await openDockerArchive(file, { scratchDirectory });
      const [unpacked, ...more] = await readdir(scratchDirectory);
      expect(more).toEqual([]);
      expect((await stat(join(scratchDirectory, unpacked!))).mode & 0o777).toBe(0o600);
      expect((await gather(image.layers[0]!.open())).equals(ONE)).toBe(true);
    }
    expect(await readdir(scratchDirectory)).toEqual([]);
  });

  it('says what to do with a compressed archive, and refuses what is none', async () => {
    await writeFile(file, gzipSync(ONE));
    await expect(openDockerArchive(file)).rejects.toMatchObject({
      code: 'OCI_UNSUPPORTED',
      hint: expect.stringContaining('gzip -d'),
    });
    const scratchDirectory = join(directory, 'scratch');
    await mkdir(scratchDirectory);
    expect(await failure(openDockerArchive(file, { scratchDirectory }))).toBe('OCI_SOURCE_INVALID');
    await writeFile(file, gzipSync(ONE).subarray(0, -9));
    expect(await failure(openDockerArchive(file, { scratchDirectory }))).toBe('OCI_SOURCE_INVALID');
    const bomb = { scratchDirectory, limits: { layerBytes: 1000 } };
    await writeFile(file, gzipSync(Buffer.alloc(5000)));
    expect(await failure(openDockerArchive(file, bomb))).toBe('LIMIT_EXCEEDED');
    expect(await readdir(scratchDirectory)).toEqual([]);
    await writeFile(file, 'not a tar'.repeat(100));
    expect(await failure(openDockerArchive(file))).toBe('OCI_SOURCE_INVALID');
    expect(await failure(openDockerArchive(directory))).toBe('OCI_SOURCE_INVALID');
    await writeFile(file, '');
    expect(await failure(gather(readPlainArchive(file)))).toBe('OCI_SOURCE_INVALID');
    // Nobody writes to it, and it is not waited for.
    const pipe = join(directory, 'pipe');
    execFileSync('mkfifo', [pipe]);
    expect(await failure(openDockerArchive(pipe))).toBe('OCI_SOURCE_INVALID');
    expect(await failure(gather(readPlainArchive(pipe)))).toBe('OCI_SOURCE_INVALID');
    expect(await failure(openDockerArchive(join(directory, 'nothing')))).toBe('OCI_SOURCE_INVALID');
    expect(await refused(good, [entry], { limits: { archiveMembers: 3 } })).toBe('LIMIT_EXCEEDED');
    expect(await refused(good, [entry], { limits: { documentBytes: 10 } })).toBe('LIMIT_EXCEEDED');
  });
});
