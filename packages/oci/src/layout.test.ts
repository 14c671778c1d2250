import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { openOciLayout } from './layout.ts';
import { hostPlatform } from './platform.ts';
import { digestOf, LayoutMaker } from './testing/make-layout.ts';
import { makeTar } from './testing/make-tar.ts';
import { failure, gather } from './testing/streams.ts';

const LAYER = makeTar([{ path: 'a', data: 'hello' }]);
const INDEX = 'application/vnd.oci.image.index.v1+json';
let directory: string;
let maker: LayoutMaker;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'oci-layout-'));
  maker = new LayoutMaker(directory);
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const opened = (options = {}) => failure(openOciLayout(directory, options));

async function nested(manifests: unknown[], tag?: string) {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests }));
  const annotations = tag === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': tag } };
  return { mediaType: INDEX, digest: await maker.blob(bytes), size: bytes.length, ...annotations };
}

describe('openOciLayout', () => {
  it('opens an image with its configuration, tidied, and its layers', async () => {
    const config = {
      Cmd: ['/bin/sh'],
      Entrypoint: null,
      Env: ['A=b'],
      ExposedPorts: { '80/tcp': { x: 1 } },
      Labels: {},
      User: '',
      WorkingDir: '/w',
      OnBuild: ['x'],
    };
    await maker.image({ layers: [LAYER, makeTar([])], tag: 'v1', config });
    await maker.finish();
    await using image = await openOciLayout(directory);
    expect(image).toMatchObject({
      reference: 'v1',
      tags: ['v1'],
      platform: { os: 'linux', architecture: 'amd64' },
      config: {
        os: 'linux',
        architecture: 'amd64',
        config: { Cmd: ['/bin/sh'], Env: ['A=b'], ExposedPorts: { '80/tcp': {} }, WorkingDir: '/w' },
      },
      history: [{ createdBy: 'test', emptyLayer: false }],
      manifestDigest: maker.manifests[0]!['digest'],
    });
    expect(Object.keys(image.config.config ?? {}).sort()).toEqual(['Cmd', 'Env', 'ExposedPorts', 'WorkingDir']);
    expect(image.layers.map((layer) => layer.diffId)).toEqual([digestOf(LAYER), digestOf(makeTar([]))]);
    expect(image.totalBytes).toBe(image.layers[0]!.sizeBytes + image.layers[1]!.sizeBytes);
    expect((await gather(image.layers[0]!.open())).equals(LAYER)).toBe(true);
  });

  it('chooses by tag, and asks for one where it must', async () => {
    await maker.image({ layers: [LAYER], tag: 'v1' });
    await maker.image({ layers: [LAYER, LAYER], tag: 'docker.io/library/app:v2' });
    await maker.finish();
    await expect(openOciLayout(directory)).rejects.toMatchObject({
      code: 'OCI_SOURCE_INVALID',
      details: { tags: ['v1', 'docker.io/library/app:v2'] },
    });
    expect((await openOciLayout(directory, { tag: 'v1' })).layers).toHaveLength(1);
    for (const tag of ['v2', 'app:v2', 'docker.io/library/app:v2']) {
      expect((await openOciLayout(directory, { tag })).layers).toHaveLength(2);
    }
    expect(await opened({ tag: 'v3' })).toBe('OCI_SOURCE_INVALID');
  });

  it('takes one image under several names', async () => {
    const descriptor = await maker.image({ layers: [LAYER], tag: 'v1' });
    const again = { ...descriptor, annotations: { 'org.opencontainers.image.ref.name': 'v2' } };
    await maker.finish([descriptor, again]);
    expect((await openOciLayout(directory)).tags).toEqual(['v1', 'v2']);
  });

  it('chooses by platform in nested indexes, attestations aside', async () => {
    const platforms = ['amd64', 'arm64', 's390x'].map((architecture) => ({ os: 'linux', architecture }));
    const inner = [];
    for (const platform of platforms) {
      inner.push({
        ...(await maker.image({ layers: [makeTar([{ path: platform.architecture }])], platform })),
        platform,
      });
    }
    inner.push({ ...inner[0], platform: { os: 'unknown', architecture: 'unknown' } });
    await maker.finish([await nested([await nested(inner)], 'multi')]);
    const image = await openOciLayout(directory, { tag: 'multi', platform: { os: 'linux', architecture: 'aarch64' } });
    expect(image.platform.architecture).toBe('arm64');
    expect((await openOciLayout(directory)).platform).toEqual(hostPlatform());
    await expect(
      openOciLayout(directory, { platform: { os: 'linux', architecture: 'riscv64' } }),
    ).rejects.toMatchObject({
      code: 'OCI_PLATFORM_MISSING',
      details: { available: ['linux/amd64', 'linux/arm64', 'linux/s390x'] },
    });
  });

  it('reads the platform from the configuration when the index does not say', async () => {
    await maker.image({ layers: [LAYER], platform: { os: 'linux', architecture: 'arm', variant: 'v7' } });
    await maker.finish();
    const wanted = { os: 'linux', architecture: 'arm', variant: 'v7' };
    expect((await openOciLayout(directory, { platform: wanted })).platform).toEqual(wanted);
    expect((await openOciLayout(directory)).platform).toEqual(wanted);
    expect(await opened({ platform: { ...wanted, variant: 'v6' } })).toBe('OCI_PLATFORM_MISSING');
  });

  it.each([{}, { architecture: 'amd64' }, { os: '', architecture: '' }, { os: null, architecture: 'arm' }])(
    'takes %j in an index for no platform',
    async (platform) => {
      const arm = { os: 'linux', architecture: 'arm64' };
      await maker.image({ layers: [], platform: arm, patchDescriptor: (d) => (d['platform'] = platform) });
      await maker.image({ layers: [LAYER], platform: { ...arm, architecture: 'riscv64' } });
      await maker.finish();
      expect((await openOciLayout(directory, { platform: arm })).layers).toHaveLength(0);
    },
  );

  it('takes null for an empty list and an empty media type for none, as programs in Go write them', async () => {
    await maker.image({
      layers: [],
      tag: 'a',
      patchManifest: (m) => Object.assign(m, { layers: null, mediaType: '', annotations: null }),
      patchConfig: (c) => Object.assign(c['rootfs'], { diff_ids: null }),
    });
    const empty = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: '', manifests: null }));
    const annotations = { 'org.opencontainers.image.ref.name': 'b' };
    const index = { mediaType: INDEX, digest: await maker.blob(empty), size: empty.length, annotations };
    await maker.finish([...maker.manifests, index]);
    expect((await openOciLayout(directory, { tag: 'a' })).layers).toEqual([]);
    await expect(openOciLayout(directory, { tag: 'b' })).rejects.toThrow('The index names no image.');
  });

  it.each([
    ['layers[0]', 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', 'with all its layers'],
    ['layers[0]', 'application/x-layer', 'plain, gzip or zstd'],
    ['config', 'application/vnd.in-toto+json', 'Give the name of an image'],
    ['self', 'application/vnd.docker.distribution.manifest.v1+prettyjws', 'schema 1'],
  ])('says what to do with %s of the type %s', async (where, type, hint) => {
    await maker.image({
      layers: [LAYER],
      patchManifest: (m) => {
        if (where === 'config') m['config'].mediaType = type;
        if (where === 'layers[0]') m['layers'][0].mediaType = type;
      },
      patchDescriptor: (d) => {
        if (where === 'self') d['mediaType'] = type;
      },
    });
    await maker.finish();
    await expect(openOciLayout(directory)).rejects.toMatchObject({
      code: 'OCI_UNSUPPORTED',
      message: expect.stringContaining(type) as string,
      hint: expect.stringContaining(hint) as string,
    });
  });

  it('accepts the Docker media types', async () => {
    await maker.image({
      layers: [LAYER],
      patchManifest: (manifest) => {
        manifest['mediaType'] = 'application/vnd.docker.distribution.manifest.v2+json';
        manifest['config'].mediaType = 'application/vnd.docker.container.image.v1+json';
        manifest['layers'][0].mediaType = 'application/vnd.docker.image.rootfs.diff.tar.gzip';
      },
      patchDescriptor: (descriptor) => {
        descriptor['mediaType'] = 'application/vnd.docker.distribution.manifest.v2+json';
      },
    });
    await maker.finish();
    const image = await openOciLayout(directory);
    expect((await gather(image.layers[0]!.open())).equals(LAYER)).toBe(true);
  });

  it.each(['plain', 'gzip', 'zstd'] as const)('reads %s layers', async (form) => {
    await maker.image({ layers: [LAYER], form });
    await maker.finish();
    expect((await gather((await openOciLayout(directory)).layers[0]!.open())).equals(LAYER)).toBe(true);
  });

  const bad: [string, string, Parameters<LayoutMaker['image']>[0]][] = [
    [
      'another media type in the manifest',
      'OCI_INVALID',
      { layers: [], patchManifest: (m) => (m['mediaType'] = INDEX) },
    ],
    ['a manifest that is also an index', 'OCI_INVALID', { layers: [], patchManifest: (m) => (m['manifests'] = []) }],
    ['a manifest without layers', 'OCI_INVALID', { layers: [], patchManifest: (m) => delete m['layers'] }],
    ['another schema version', 'OCI_INVALID', { layers: [], patchManifest: (m) => (m['schemaVersion'] = 1) }],
    [
      'a digest that is a path',
      'OCI_INVALID',
      { layers: [LAYER], patchManifest: (m) => (m['layers'][0].digest = 'sha256:../../x') },
    ],
    [
      'another digest algorithm',
      'OCI_UNSUPPORTED',
      { layers: [LAYER], patchManifest: (m) => (m['layers'][0].digest = 'sha512:00') },
    ],
    [
      'a missing layer',
      'OCI_INVALID',
      { layers: [LAYER], patchManifest: (m) => (m['layers'][0].digest = `sha256:${'0'.repeat(64)}`) },
    ],
    ['a wrong layer size', 'OCI_DIGEST_MISMATCH', { layers: [LAYER], patchManifest: (m) => m['layers'][0].size++ }],
    ['a negative size', 'OCI_INVALID', { layers: [LAYER], patchManifest: (m) => (m['layers'][0].size = -1) }],
    [
      'an unknown layer type',
      'OCI_UNSUPPORTED',
      {
        layers: [LAYER],
        patchManifest: (m) => (m['layers'][0].mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted'),
      },
    ],
    [
      'a foreign layer',
      'OCI_UNSUPPORTED',
      {
        layers: [LAYER],
        patchManifest: (m) => (m['layers'][0].mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'),
      },
    ],
    [
      'an artifact',
      'OCI_UNSUPPORTED',
      { layers: [], patchManifest: (m) => (m['config'].mediaType = 'application/vnd.cncf.helm.config.v1+json') },
    ],
    ['too few diff ids', 'OCI_INVALID', { layers: [LAYER], patchConfig: (c) => c['rootfs'].diff_ids.pop() }],
    [
      'a diff id that is none',
      'OCI_INVALID',
      { layers: [LAYER], patchConfig: (c) => (c['rootfs'].diff_ids[0] = 'sha256:zz') },
    ],
    ['a command that is no list', 'OCI_INVALID', { layers: [], config: { Cmd: '/bin/sh' } }],
    ['a wrong manifest size', 'OCI_DIGEST_MISMATCH', { layers: [], patchDescriptor: (d) => d['size']++ }],
    [
      'an old manifest type',
      'OCI_UNSUPPORTED',
      {
        layers: [],
        patchDescriptor: (d) => (d['mediaType'] = 'application/vnd.docker.distribution.manifest.v1+prettyjws'),
      },
    ],
  ];
  it.each(bad)('refuses %s', async (_, code, spec) => {
    await maker.image(spec);
    await maker.finish();
    expect(await opened()).toBe(code);
  });

  it('refuses changed documents and names what is missing', async () => {
    const { digest } = await maker.image({ layers: [LAYER] });
    await maker.finish();
    const path = maker.pathOf(digest);
    const manifest = await readFile(path, 'utf8');
    await writeFile(path, manifest.replace('"schemaVersion":2', '"schemaVersion":3'));
    expect(await opened()).toBe('OCI_DIGEST_MISMATCH');
    await rm(path);
    await expect(openOciLayout(directory)).rejects.toThrow(digest);
    execFileSync('mkfifo', [path]);
    expect(await opened()).toBe('OCI_SOURCE_INVALID');
  });

  it('refuses what is no layout', async () => {
    await expect(openOciLayout(directory)).rejects.toThrow(/oci-layout/);
    expect(await failure(openOciLayout(join(directory, 'nothing')))).toBe('OCI_SOURCE_INVALID');
    await maker.finish([]);
    expect(await opened()).toBe('OCI_SOURCE_INVALID');
    await writeFile(join(directory, 'index.json'), '{');
    expect(await opened()).toBe('OCI_INVALID');
    for (const member of ['config', 'layers']) {
      await writeFile(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [], [member]: [] }));
      expect(await opened(), member).toBe('OCI_INVALID');
    }
    const bytes = Buffer.from('{"schemaVersion":2,"manifests":[],"x":"?"}');
    bytes[bytes.indexOf('?')] = 0xff;
    await writeFile(join(directory, 'index.json'), bytes);
    expect(await opened()).toBe('OCI_INVALID');
    await truncate(join(directory, 'index.json'), 5 * 1024 * 1024);
    expect(await opened()).toBe('LIMIT_EXCEEDED');
    await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"2.0.0"}');
    expect(await opened()).toBe('OCI_UNSUPPORTED');
  });

  it('bounds documents, and refuses what is none of an image although its index has a platform for it', async () => {
    const platform = { os: 'linux', architecture: 'amd64' };
    const long = 'x'.repeat(5000);
    await maker.image({ layers: [], patchConfig: (c) => (c['history'] = [{ comment: long }]) });
    await maker.finish();
    expect(await opened({ limits: { documentBytes: 4000 } })).toBe('LIMIT_EXCEEDED');
    expect(await opened({ limits: { documentBytes: 6000 } })).toBeUndefined();
    const artifact = await maker.image({
      layers: [],
      patchManifest: (m) => (m['config'].mediaType = 'application/vnd.cncf.helm.config.v1+json'),
      patchDescriptor: (d) => (d['platform'] = platform),
    });
    await maker.finish([artifact]);
    expect(await opened()).toBe('OCI_UNSUPPORTED');
    const manifest = 'application/vnd.oci.image.manifest.v1+json';
    for (const [mediaType, code] of [
      [manifest, 'OCI_INVALID'],
      [INDEX, undefined],
    ] as const) {
      const bytes = JSON.stringify({ schemaVersion: 2, mediaType, manifests: [maker.manifests[0]] });
      await writeFile(join(directory, 'index.json'), bytes);
      expect(await opened()).toBe(code);
    }
  });

  it('bounds nesting and layers', async () => {
    let descriptor: unknown = await maker.image({ layers: [LAYER, LAYER] });
    await maker.finish();
    expect(await opened({ limits: { layers: 1 } })).toBe('LIMIT_EXCEEDED');
    for (let i = 0; i < 6; i++) descriptor = await nested([descriptor]);
    await maker.finish([descriptor]);
    expect(await opened()).toBe('LIMIT_EXCEEDED');
  });

  it('stops when told to', async () => {
    await maker.image({ layers: [LAYER] });
    await maker.finish();
    const reason = new Error('enough');
    await expect(openOciLayout(directory, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const image = await openOciLayout(directory);
    await expect(gather(image.layers[0]!.open({ signal: AbortSignal.abort(reason) }))).rejects.toBe(reason);
  });
});
