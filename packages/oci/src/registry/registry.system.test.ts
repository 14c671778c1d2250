import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { Scope } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { createNodeFetch, type NodeFetch } from '@decant/transport/node';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { dockerCredentials } from '../docker-config.ts';
import { openOciLayout } from '../layout.ts';
import type { OciImage } from '../image.ts';
import { parseReference } from '../reference.ts';
import { createRegistry, type Registry } from '../registry-server/handler.ts';
import { startDockerRegistry } from '../testing/docker-registry.ts';
import { digestOf, LayoutMaker } from '../testing/make-layout.ts';
import { makeTar } from '../testing/make-tar.ts';
import { MemoryStore } from '../testing/memory-store.ts';
import { serveHandler, type TestServer } from '../testing/serve.ts';
import { failure, gather } from '../testing/streams.ts';
import { openRegistryImage } from './pull.ts';
import { pushImage } from './push.ts';

const [registry, skopeo, buildah, dockerProgram] = await Promise.all(
  ['docker-registry', 'skopeo', 'buildah', 'docker'].map(findProgram),
);
const docker = dockerProgram !== undefined && inject('dockerHost') !== null;
const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
const LAYERS = [
  makeTar([{ path: 'a', data: 'hello' }]),
  makeTar([{ path: 'b', data: Buffer.alloc(9_000_000, 'some text ') }]),
];
const TIMEOUT = 120_000;

let directory: string;
let http: NodeFetch;
let layout: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'registry-system-'));
  http = createNodeFetch();
  const maker = new LayoutMaker(join(directory, 'layout'));
  const platform = { os: 'linux', architecture };
  await maker.image({ layers: LAYERS, tag: 'v1', platform, config: { Cmd: ['/a'] } });
  layout = await maker.finish();
});
afterEach(async () => {
  await http.close();
  await rm(directory, { recursive: true, force: true });
});

async function expectLayers(image: OciImage): Promise<void> {
  const digests = [];
  for (const layer of image.layers) digests.push(digestOf(await gather(layer.open())));
  expect(digests).toEqual(LAYERS.map(digestOf));
  expect(image.config.config?.Cmd).toEqual(['/a']);
}

describe.skipIf(registry === undefined)('[backend:docker-registry] the client and a registry with passwords', () => {
  const scope = new Scope();
  let host: string;
  beforeAll(async () => {
    host = await startDockerRegistry(registry!, scope);
  });
  afterAll(() => scope[Symbol.asyncDispose]());

  it(
    'takes a push and gives it back, with the login of docker',
    async () => {
      const config = join(directory, 'docker');
      await mkdir(config);
      const auth = Buffer.from('me:secret').toString('base64');
      await writeFile(join(config, 'config.json'), JSON.stringify({ auths: { [host]: { auth } } }));
      const options = { fetch: http.fetch, credentials: dockerCredentials({ directory: config }) };
      const reference = parseReference(`${host}/team/app:v1`);
      await using source = await openOciLayout(layout);
      const { digest, sentBlobs } = await pushImage(source, reference, options);
      expect([digest, sentBlobs]).toEqual([source.manifestDigest, 3]);
      expect(await pushImage(source, reference, options)).toMatchObject({ sentBlobs: 0 });
      expect(
        await pushImage(source, parseReference(`${host}/other/app:v1`), { ...options, mountFrom: 'team/app' }),
      ).toMatchObject({ sentBlobs: 0 });
      await using image = await openRegistryImage(reference, { ...options, scratchDirectory: directory });
      expect(image.manifestDigest).toBe(digest);
      await expectLayers(image);
      expect(await failure(openRegistryImage(reference, { fetch: http.fetch }))).toBe('UNAUTHORIZED');
      expect(await failure(openRegistryImage(parseReference(`${host}/team/none:v1`), options))).toBe('NOT_FOUND');
    },
    TIMEOUT,
  );
});

describe('our registry and other clients', () => {
  let server: TestServer;
  let store: MemoryStore;
  let ours: Registry;
  beforeEach(async () => {
    store = new MemoryStore();
    ours = createRegistry({ store });
    server = await serveHandler(ours.handle);
  });
  const storedBlobs = () => [...store.objects.keys()].filter((key) => key.startsWith('registry/blobs/')).length;
  afterEach(() => server[Symbol.asyncDispose]());
  const open = (name: string) => openRegistryImage(parseReference(`${server.host}/${name}`), { fetch: http.fetch });

  describe.skipIf(skopeo === undefined)('[backend:skopeo] skopeo', () => {
    it(
      'copies in and out, deletes, and sees what our client pushed',
      async () => {
        const tool = (...args: string[]) => run(skopeo!, args, { timeoutMs: 240_000 });
        await tool('copy', '--dest-tls-verify=false', `oci:${layout}:v1`, `docker://${server.host}/sk/app:v1`);
        await tool(
          'copy',
          '--dest-tls-verify=false',
          '--format',
          'v2s2',
          `oci:${layout}:v1`,
          `docker://${server.host}/sk/two:v1`,
        );
        for (const name of ['sk/app:v1', 'sk/two:v1']) {
          await using image = await open(name);
          await expectLayers(image);
        }
        await using source = await openOciLayout(layout);
        await pushImage(source, parseReference(`${server.host}/ours/app:v1`), { fetch: http.fetch });
        await tool('copy', '--src-tls-verify=false', `docker://${server.host}/ours/app:v1`, `oci:${directory}/out:v1`);
        await using copy = await openOciLayout(join(directory, 'out'));
        expect(copy.manifestDigest).toBe(source.manifestDigest);
        const { stdout } = await tool('list-tags', '--tls-verify=false', `docker://${server.host}/sk/app`);
        expect(JSON.parse(stdout.toString())).toMatchObject({ Tags: ['v1'] });
        await tool('delete', '--tls-verify=false', `docker://${server.host}/sk/app:v1`);
        expect(await failure(open('sk/app:v1'))).toBe('NOT_FOUND');
        // The other repositories have the same blobs.
        const before = storedBlobs();
        expect(await ours.collect({ graceMs: 0 })).toMatchObject({ unlinked: 3, removed: 0 });
        expect(storedBlobs()).toBe(before);
        for (const name of ['sk/two', 'ours/app']) {
          await tool('delete', '--tls-verify=false', `docker://${server.host}/${name}:v1`);
        }
        expect(await ours.collect({ graceMs: 0 })).toMatchObject({ removed: before });
        expect(storedBlobs()).toBe(0);
        await tool('copy', '--dest-tls-verify=false', `oci:${layout}:v1`, `docker://${server.host}/sk/app:v1`);
        await using again = await open('sk/app:v1');
        await expectLayers(again);
      },
      TIMEOUT,
    );
  });

  describe.skipIf(buildah === undefined)('[backend:buildah] buildah', () => {
    it(
      'pushes and pulls',
      async () => {
        const storage = [
          '--root',
          join(directory, 'root'),
          '--runroot',
          join(directory, 'run'),
          '--storage-driver',
          'vfs',
        ];
        const tool = (...args: string[]) => run(buildah!, [...storage, ...args], { timeoutMs: 240_000 });
        await using source = await openOciLayout(layout);
        await pushImage(source, parseReference(`${server.host}/app:v1`), { fetch: http.fetch });
        await tool('pull', '--tls-verify=false', `docker://${server.host}/app:v1`);
        await tool('push', '--tls-verify=false', `${server.host}/app:v1`, `docker://${server.host}/again/app:v2`);
        await using image = await open('again/app:v2');
        await expectLayers(image);
      },
      TIMEOUT,
    );
  });

  describe.skipIf(!docker)('[backend:docker] docker', () => {
    it(
      'pulls and pushes',
      async () => {
        const tool = (...args: string[]) => run('docker', args, { timeoutMs: 240_000 });
        await using source = await openOciLayout(layout);
        await pushImage(source, parseReference(`${server.host}/app:v1`), { fetch: http.fetch });
        try {
          await tool('pull', `${server.host}/app:v1`);
          await tool('tag', `${server.host}/app:v1`, `${server.host}/again/app:v2`);
          // Docker asks for what is there and sends the rest, while collections go on.
          const push = tool('push', `${server.host}/again/app:v2`);
          const pushed = () => Promise.race([push.then(() => true), sleep(10).then(() => false)]);
          while (!(await pushed())) await ours.collect({ graceMs: 120_000 });
        } finally {
          await run('docker', ['image', 'rm', `${server.host}/app:v1`, `${server.host}/again/app:v2`], {
            okCodes: [0, 1],
          });
        }
        const remove = async (name: string, digest: string | undefined) =>
          http.fetch(`http://${server.host}/v2/${name}/manifests/${digest}`, { method: 'DELETE' });
        await remove('app', source.manifestDigest);
        await ours.collect({ graceMs: 0 });
        {
          await using image = await open('again/app:v2');
          await expectLayers(image);
          await remove('again/app', image.manifestDigest);
        }
        await ours.collect({ graceMs: 0 });
        expect(storedBlobs()).toBe(0);
      },
      TIMEOUT,
    );
  });
});
