import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createNodeFetch, type NodeFetch } from '@decant/transport/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { openOciLayout, openOciLayoutTree } from '../layout.ts';
import { parseReference } from '../reference.ts';
import { createRegistryHandler, type RegistryHandlerOptions } from '../registry-server/handler.ts';
import { MemoryStore } from '../testing/memory-store.ts';
import { digestOf, LayoutMaker } from '../testing/make-layout.ts';
import { makeTar } from '../testing/make-tar.ts';
import { serve, serveHandler, type TestServer } from '../testing/serve.ts';
import { failure, gather } from '../testing/streams.ts';
import { writeOciLayout } from '../write-layout.ts';
import { openRegistryImage, openRegistryTree, type OpenRegistryImageOptions } from './pull.ts';
import { pushImage, type PushImageOptions } from './push.ts';

const LAYERS = [makeTar([{ path: 'a', data: 'hello' }]), makeTar([{ path: 'b', data: Buffer.alloc(150_000, 'x') }])];
let directory: string;
let http: NodeFetch;
let store: MemoryStore;
let server: TestServer;
let log: string[];

async function start(options: Partial<RegistryHandlerOptions> = {}): Promise<void> {
  const handler = createRegistryHandler({ store, ...options });
  server = await serveHandler((request) => {
    log.push(`${request.method} ${new URL(request.url).pathname}${request.headers.has('range') ? ' range' : ''}`);
    return handler(request);
  });
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'registry-'));
  http = createNodeFetch();
  store = new MemoryStore();
  log = [];
});
afterEach(async () => {
  await http.close();
  await server[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const named = (name: string) => parseReference(`${server.host}/${name}`);
const pull = (name: string, options: Partial<OpenRegistryImageOptions> = {}) =>
  openRegistryImage(named(name), { fetch: http.fetch, ...options });
const pullFails = async (name: string, options: Partial<OpenRegistryImageOptions> = {}) =>
  failure(
    (async () => {
      await using image = await pull(name, options);
      for (const layer of image.layers) await gather(layer.open());
    })(),
  );

async function push(name: string, options: Partial<PushImageOptions> = {}) {
  const maker = new LayoutMaker(join(directory, `layout-${Math.random()}`));
  await maker.image({ layers: LAYERS, tag: 'v1' });
  await using image = await openOciLayout(await maker.finish());
  return pushImage(image, named(name), { fetch: http.fetch, ...options });
}

describe('a registry and its client', () => {
  it('gives back what was pushed, layer for layer, and sends nothing twice', async () => {
    await start();
    const first = await push('team/app:v1');
    expect(first).toMatchObject({ sentBlobs: 3, presentBlobs: 0 });
    expect(await push('team/app:v2')).toEqual({ digest: first.digest, sentBytes: 0, sentBlobs: 0, presentBlobs: 3 });
    for (const reference of ['team/app:v1', `team/app@${first.digest}`]) {
      await using image = await pull(reference);
      expect(image).toMatchObject({ manifestDigest: first.digest, platform: { os: 'linux', architecture: 'amd64' } });
      expect(await Promise.all(image.layers.map((layer) => gather(layer.open())))).toEqual(LAYERS);
    }
  });

  it('pushes no other image than a digest names, and mounts from what can be a repository', async () => {
    await start();
    expect(await failure(push(`app@sha256:${'0'.repeat(64)}`))).toBe('USAGE');
    expect(await failure(push('app:v1', { mountFrom: '../app' }))).toBe('NAME_INVALID');
    expect(log).toEqual([]);
    const { digest } = await push('app:v1');
    expect(await push(`app@${digest}`)).toMatchObject({ digest, sentBlobs: 0 });
  });

  it('sends again what a busy registry did not take, and does not believe one that stores something else', async () => {
    const handler = createRegistryHandler({ store });
    const failed = new Set<string>();
    let stored = '';
    server = await serveHandler(async (request) => {
      const { pathname } = new URL(request.url);
      const kind = `${request.method} ${pathname.split('/')[3]}`;
      if (request.method !== 'GET' && !failed.has(kind)) {
        failed.add(kind);
        await request.arrayBuffer();
        return new Response(null, { status: 500 });
      }
      const response = await handler(request);
      if (stored !== '' && kind === 'PUT manifests') response.headers.set('docker-content-digest', stored);
      return response;
    });
    expect(await push('app:v1')).toMatchObject({ sentBlobs: 3 });
    expect([...failed].sort()).toEqual(['HEAD blobs', 'POST blobs', 'PUT blobs', 'PUT manifests']);
    stored = `sha256:${'0'.repeat(64)}`;
    expect(await failure(push('app:v2'))).toBe('OCI_DIGEST_MISMATCH');
  });

  it('mounts blobs from a repository that has them', async () => {
    await start();
    await push('one:v1');
    expect(await push('two:v1', { mountFrom: 'one' })).toMatchObject({ sentBlobs: 0, presentBlobs: 3 });
    expect(log.filter((line) => line.startsWith('PUT') && line.includes('two/blobs'))).toEqual([]);
    await using image = await pull('two:v1');
    expect(await gather(image.layers[0]!.open())).toEqual(LAYERS[0]);
  });

  it('downloads each layer once into the scratch directory and leaves nothing there', async () => {
    await start();
    await push('app:v1');
    const scratchDirectory = await mkdtemp(join(directory, 'scratch-'));
    {
      await using image = await pull('app:v1', { scratchDirectory });
      for (const [i, layer] of [...image.layers, ...image.layers].entries()) {
        expect(await gather(layer.open())).toEqual(LAYERS[i % 2]);
      }
      expect(log.filter((line) => line.startsWith('GET') && line.includes('/blobs/'))).toHaveLength(3);
      expect(await readdir(scratchDirectory)).toHaveLength(2);
    }
    expect(await readdir(scratchDirectory)).toEqual([]);
  });

  it('passes on images of many layers, also of equal ones', async () => {
    await start();
    const layers = Array.from({ length: 127 }, (_, i) => makeTar([{ path: `f${i % 100}`, data: `${i % 100}` }]));
    const maker = new LayoutMaker(join(directory, 'many'));
    await maker.image({ layers, tag: 'v1' });
    {
      await using image = await openOciLayout(await maker.finish());
      // Each blob once.
      expect(await pushImage(image, named('many:v1'), { fetch: http.fetch })).toMatchObject({ sentBlobs: 101 });
    }
    await using image = await pull('many:v1', { scratchDirectory: directory });
    expect(image.layers).toHaveLength(127);
    for (const [i, layer] of image.layers.entries()) expect(await gather(layer.open())).toEqual(layers[i]);
    expect(log.filter((line) => line.startsWith('GET') && line.includes('/blobs/'))).toHaveLength(101);
  });

  it('writes a layout that opens again with its name', async () => {
    await start();
    const { digest } = await push('team/app:v1');
    const target = join(directory, 'out');
    {
      await using image = await pull('team/app:v1');
      await writeOciLayout(image, target);
      const file = join(directory, 'file');
      await writeFile(file, '');
      for (const other of [
        target,
        file,
        join(file, 'x'),
        join(directory, 'n'.repeat(300)),
        `${target}/${'n'.repeat(250)}`,
      ]) {
        await expect(writeOciLayout(image, other)).rejects.toMatchObject({
          code: 'USAGE',
          hint: expect.any(String) as string,
        });
      }
    }
    {
      await using image = await pull('team/app:v1');
      const other = join(directory, 'other');
      const layers = image.layers.map((layer) => ({
        ...layer,
        async *read() {
          // Somebody else is quicker.
          await mkdir(other, { recursive: true });
          await writeFile(join(other, 'mine'), 'mine');
          yield* layer.read();
        },
      }));
      expect(await failure(writeOciLayout({ ...image, layers }, other))).toBe('USAGE');
      expect(await readdir(other)).toEqual(['mine']);
      expect((await readdir(directory)).filter((name) => name.startsWith('.other'))).toEqual([]);
    }
    await using image = await openOciLayout(target, { tag: 'v1' });
    expect(image).toMatchObject({ manifestDigest: digest, reference: `${server.host}/team/app:v1` });
    expect(await gather(image.layers[1]!.open())).toEqual(LAYERS[1]);
    const index = JSON.parse(await readFile(join(target, 'index.json'), 'utf8')) as {
      manifests: { annotations: object }[];
    };
    expect(index.manifests[0]!.annotations).toMatchObject({ 'org.opencontainers.image.ref.name': 'v1' });
  });

  it('chooses by platform through nested indexes and says what there is', async () => {
    const maker = new LayoutMaker(join(directory, 'multi'));
    const platforms = ['amd64', 'arm64'].map((architecture) => ({ os: 'linux', architecture }));
    const manifests = [];
    for (const platform of platforms)
      manifests.push({ ...(await maker.image({ layers: [LAYERS[0]!], platform })), platform });
    await maker.finish();
    await start();
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    const put = async (bytes: Buffer, reference: string, type: string) => {
      const init = { method: 'PUT', body: bytes, headers: { 'content-type': type } };
      expect((await http.fetch(`http://${server.host}/v2/app/manifests/${reference}`, init)).status).toBe(201);
    };
    for (const platform of platforms) {
      await using image = await openOciLayout(maker.directory, { platform });
      await pushImage(image, named(`app:${platform.architecture}`), { fetch: http.fetch });
    }
    const inner = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
    await put(inner, 'inner', mediaType);
    const digest = digestOf(inner);
    const outer = { schemaVersion: 2, mediaType, manifests: [{ mediaType, digest, size: inner.length }] };
    await put(Buffer.from(JSON.stringify(outer)), 'outer', mediaType);
    await using image = await pull('app:outer', { platform: platforms[1] });
    expect(image.platform).toEqual(platforms[1]);
    await expect(pull('app:outer', { platform: { os: 'linux', architecture: 'riscv64' } })).rejects.toMatchObject({
      code: 'OCI_PLATFORM_MISSING',
      details: { available: ['linux/amd64', 'linux/arm64'] },
    });
  });

  it('copies an index with all it names, nested ones too, to a registry, a layout and back', async () => {
    const platforms = ['amd64', 'arm64'].map((architecture) => ({ os: 'linux', architecture }));
    const maker = new LayoutMaker(join(directory, 'whole'));
    const manifests: object[] = [];
    for (const [i, platform] of platforms.entries()) {
      manifests.push({ ...(await maker.image({ layers: [LAYERS[0]!, LAYERS[i]!], platform })), platform });
    }
    const foreign = {
      mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
      digest: `sha256:${'f'.repeat(64)}`,
      size: 7,
      urls: ['https://elsewhere.example/layer'],
    };
    const windows = { os: 'windows', architecture: 'amd64' };
    const patchManifest = (manifest: Record<string, any>) => void (manifest['layers'][0] = foreign);
    manifests.push({
      ...(await maker.image({ layers: [LAYERS[0]!], platform: windows, patchManifest })),
      platform: windows,
    });
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    const index = async (entries: object[]) => {
      const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: entries }));
      return { mediaType, digest: await maker.blob(bytes), size: bytes.length };
    };
    const inner = await index(manifests.slice(0, 2));
    const outer = await index([inner, manifests[2]!]);
    const annotations = { 'org.opencontainers.image.ref.name': 'v1' };
    await maker.finish([{ ...outer, annotations }]);
    await start();
    const options = { fetch: http.fetch };
    {
      await using tree = await openOciLayoutTree(maker.directory, { tag: 'v1' });
      expect(tree.platforms).toEqual([...platforms, windows]);
      // Two layers of one, one more of the other, three configurations; the foreign layer's bytes are nobody's.
      expect(tree.blobs).toHaveLength(5);
      const pushed = await pushImage(tree, named('app:v1'), options);
      expect(pushed).toMatchObject({ digest: outer.digest, sentBlobs: 5 });
      expect(await pushImage(tree, named('app:v2'), options)).toMatchObject({ sentBlobs: 0 });
    }
    const target = join(directory, 'copy');
    {
      await using tree = await openRegistryTree(named('app:v1'), options);
      expect(await writeOciLayout(tree, target)).toMatchObject({ digest: outer.digest });
    }
    await using image = await openOciLayout(target, { platform: platforms[1], tag: 'v1' });
    expect(image.layers).toHaveLength(2);
    expect(await gather(image.layers[1]!.open())).toEqual(LAYERS[1]);
    expect((await readdir(join(target, 'blobs/sha256'))).sort()).toEqual(
      (await readdir(join(maker.directory, 'blobs/sha256'))).filter((name) => !name.startsWith('ffff')).sort(),
    );
    await using again = await openRegistryTree(named('app:v1'), options);
    store.objects.delete([...store.objects.keys()].find((key) => key.endsWith(again.blobs[0]!.digest.slice(7)))!);
    expect(await failure(writeOciLayout(again, join(directory, 'broken')))).toBe('NOT_FOUND');
    // Nor under the name that it has until it is complete.
    expect((await readdir(directory)).filter((name) => name.includes('broken'))).toEqual([]);
  });

  it('makes an index of the platforms that a layout names beside each other', async () => {
    const maker = new LayoutMaker(join(directory, 'flat'));
    for (const architecture of ['amd64', 'arm64']) {
      await maker.image({ layers: [LAYERS[0]!], platform: { os: 'linux', architecture } });
    }
    await maker.finish();
    await start();
    await using tree = await openOciLayoutTree(maker.directory);
    expect(tree.inner).toHaveLength(2);
    await pushImage(tree, named('app:v1'), { fetch: http.fetch });
    await using image = await pull('app:v1', { platform: { os: 'linux', architecture: 'arm64' } });
    expect(image.platform.architecture).toBe('arm64');
  });

  it('asks mirrors first and passes over those that do not have it', async () => {
    await start();
    await push('team/app:v1');
    const reference = parseReference('registry.invalid/team/app:v1');
    await using nobody = await serve((_, response) => response.writeHead(404).end());
    const mirrors = async () => [
      { ...reference, registry: nobody.host },
      { ...reference, registry: server.host },
      reference,
    ];
    await using image = await openRegistryImage(reference, { fetch: http.fetch, mirrors });
    expect(await gather(image.layers[0]!.open())).toEqual(LAYERS[0]);
    expect(image.reference).toBe('registry.invalid/team/app:v1');
    expect(log.filter((line) => line.includes('/manifests/'))).toHaveLength(2);
    const none = async () => [{ ...reference, registry: nobody.host }];
    expect(await failure(openRegistryImage(reference, { fetch: http.fetch, mirrors: none }))).toBe('NOT_FOUND');
  });

  it('answers a basic challenge, and says which login is missing', async () => {
    const expected = `Basic ${Buffer.from('me:pässword').toString('base64')}`;
    await start({
      authorize: async (request, repository) => {
        if (request.headers.get('authorization') !== expected) return 'unauthenticated';
        return repository?.startsWith('other/') === true ? 'deny' : 'allow';
      },
    });
    const credentials = async () => ({ kind: 'password', username: 'me', password: 'pässword' }) as const;
    await push('app:v1', { credentials });
    await using image = await pull('app:v1', { credentials });
    expect(await gather(image.layers[0]!.open())).toEqual(LAYERS[0]);
    expect(await pullFails('app:v1')).toBe('UNAUTHORIZED');
    expect(await pullFails('other/app:v1', { credentials })).toBe('FORBIDDEN');
    const wrong = async () => ({ kind: 'password', username: 'me', password: 'no' }) as const;
    expect(await pullFails('app:v1', { credentials: wrong })).toBe('UNAUTHORIZED');
    expect(await pullFails('missing:v1', { credentials })).toBe('NOT_FOUND');
  });

  it('stops a push whose source is damaged, with the damage as the error, and names nothing', async () => {
    await start();
    const maker = new LayoutMaker(join(directory, 'damaged'));
    await maker.image({ layers: LAYERS, form: 'plain', tag: 'v1' });
    await using image = await openOciLayout(await maker.finish());
    await writeFile(maker.pathOf(image.layers[1]!.digest), Buffer.alloc(image.layers[1]!.sizeBytes, 'y'));
    expect(await failure(pushImage(image, named('app:v1'), { fetch: http.fetch }))).toBe('OCI_DIGEST_MISMATCH');
    expect(await pullFails('app:v1')).toBe('NOT_FOUND');
    expect([...store.objects.keys()].filter((key) => key.includes(image.layers[1]!.digest.slice(7)))).toEqual([]);
  });
});
