import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram } from '../packages/core/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import {
  decant,
  decantJson,
  failure,
  startDecant,
  succeed,
  type DecantOptions,
  type MadeImage,
  type RunningDecant,
} from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { have, isRoot, output, tool } from './support/programs.ts';

const docker = inject('dockerHost') !== null && have('docker');
const podmanProgram = await findProgram('podman');

describe.skipIf(!isRoot || !have('busybox', 'bwrap', 'nbdfuse', 'skopeo', 'buildah'))(
  '[backend:buildah] [backend:docker] the registry of decant serve',
  () => {
    let folder: TemporaryDirectory;
    let server: RunningDecant;
    let data: string;
    let url: string;
    let host: string;
    let key: string;
    let source: string;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-');
      data = join(folder.path, 'server');
      source = await smallImage(folder.path, 'layout', { config: { Cmd: ['sh'] }, noiseBytes: 6 * 2 ** 20 });
      server = startDecant(['serve', '--port', '0', '--data', data], { home: join(folder.path, 'unused') });
      // All of standard output, whatever came on standard error before.
      [, url, key] = (await server.seen(/^(http:\S+)\n(dk_\S+)\n/)) as unknown as [string, string, string];
      await server.seen(/Use it with/);
      host = new URL(url).host;
    });
    afterAll(async () => {
      await server?.[Symbol.asyncDispose]();
      await folder?.[Symbol.asyncDispose]();
    });

    const client = (apiKey = key): DecantOptions => ({
      home: join(folder.path, 'client'),
      env: { DECANT_URL: url, DECANT_API_KEY: apiKey },
    });
    const stranger = async () =>
      (await decantJson<{ key: string }>(['key', 'create', '--namespace', 'other'], { home: data })).key;

    test('decant pushes with its key, and imports, runs and pulls what is there', async () => {
      const sent = await decantJson<{ digest: string; sentBlobs: number }>(
        ['image', 'push', source, `${host}/default/app:v1`],
        client(),
      );
      expect(sent.sentBlobs).toBe(3);
      const again = await decantJson(['image', 'push', source, `${host}/default/app:v2`], client());
      expect(again).toMatchObject({ digest: sent.digest, sentBlobs: 0, presentBlobs: 3 });
      const made = await decantJson<MadeImage>(
        ['image', 'import', `registry:${host}/default/app:v1`, '--streaming'],
        client(),
      );
      expect(made.image).toMatchObject({ name: 'app', tag: 'v1' });
      expect((await decant(['run', 'app:v1', '--', 'echo', 'it runs'], client())).stdout).toBe('it runs\n');
      const pulled = join(folder.path, 'pulled');
      await succeed(['image', 'pull', `${host}/default/app@${sent.digest}`, pulled], client());
      const digest = await output('skopeo', ['inspect', '--format', '{{.Digest}}', `oci:${pulled}`]);
      expect(digest.trim()).toBe(sent.digest);
    });

    test('skopeo, buildah and podman log in, push and pull', async () => {
      const auth = join(folder.path, 'auth.json');
      const storage = ['--root', join(folder.path, 'graph'), '--runroot', join(folder.path, 'run')];
      const buildah = (...args: string[]) => tool('buildah', [...storage, '--storage-driver', 'vfs', ...args]);
      const flags = ['--authfile', auth, '--tls-verify=false'];
      await expect(
        tool('skopeo', ['list-tags', '--tls-verify=false', `docker://${host}/default/app`]),
      ).rejects.toThrow();
      await tool('skopeo', ['login', ...flags, '-u', 'decant', '-p', key, host]);
      await tool('skopeo', [
        'copy',
        '--dest-authfile',
        auth,
        '--dest-tls-verify=false',
        source,
        `docker://${host}/default/sk/app:1`,
      ]);
      await buildah('pull', ...flags, `docker://${host}/default/sk/app:1`);
      await buildah('push', ...flags, `${host}/default/sk/app:1`, `docker://${host}/default/bu/app:2`);
      // The configuration is the same one, whoever passes the image on.
      const configs = await Promise.all(
        ['app:v1', 'bu/app:2'].map((name) =>
          output('skopeo', ['inspect', ...flags, '--config', `docker://${host}/default/${name}`]),
        ),
      );
      expect(JSON.parse(configs[1]!)).toMatchObject({
        config: { Cmd: ['sh'] },
        rootfs: { diff_ids: JSON.parse(configs[0]!).rootfs.diff_ids },
      });
      if (podmanProgram !== undefined) {
        const podman = (...args: string[]) => tool('podman', [...storage, '--storage-driver', 'vfs', ...args]);
        await podman('pull', '--quiet', ...flags, `${host}/default/bu/app:2`);
        await podman('push', '--quiet', ...flags, `${host}/default/bu/app:2`, `${host}/default/po/app:3`);
        const imported = ['image', 'import', `registry:${host}/default/po/app:3`, '--streaming', '-n', 'po:3'];
        await succeed(imported, client());
        expect((await decant(['run', 'po:3', '--', 'echo', 'podman'], client())).stdout).toBe('podman\n');
      }
      await tool('skopeo', ['delete', ...flags, `docker://${host}/default/sk/app:1`]);
      expect((await failure(['image', 'import', `registry:${host}/default/sk/app:1`], client())).status).toBe(4);
    });

    test.skipIf(!docker)('docker logs in with credentials made for it, pushes and pulls', async () => {
      const answer = await fetch(`${url}/v1/container-registries/default/credentials`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}` },
      });
      expect(answer.status).toBe(201);
      const { username, password, registry_url: place } = (await answer.json()) as Record<string, string>;
      expect(place).toBe(`${host}/default`);
      const config = join(folder.path, 'docker');
      await mkdir(config);
      const run = (args: string[], input?: string) =>
        tool('docker', ['--config', config, ...args], input === undefined ? {} : { input });
      const names = [`${host}/default/app:v1`, `${place}/dock/er:1`, `${host}/other/app:1`];
      try {
        await expect(run(['pull', names[0]!])).rejects.toThrow();
        await run(['login', '--username', username!, '--password-stdin', host], password);
        await run(['pull', names[0]!]);
        await run(['tag', names[0]!, names[1]!]);
        await run(['push', names[1]!]);
        await run(['tag', names[0]!, names[2]!]);
        await expect(run(['push', names[2]!])).rejects.toThrow();
      } finally {
        await tool('docker', ['image', 'rm', '--force', ...names], { okCodes: [0, 1] });
      }
      await succeed(['image', 'import', `registry:${names[1]}`, '--streaming', '-n', 'dock:1'], client());
      expect((await decant(['run', 'dock:1', '--', 'echo', 'docker'], client())).stdout).toBe('docker\n');
      const secret = Buffer.from(password!.slice(-43));
      // What was written last is in the log beside the database for as long as the server runs.
      const database = (await readdir(data)).filter((name) => name.startsWith('metadata.sqlite'));
      const stored = Buffer.concat(await Promise.all(database.map((name) => readFile(join(data, name)))));
      expect(stored.indexOf(username!)).toBeGreaterThan(0);
      expect(stored.indexOf(secret)).toBe(-1);
      // The credentials open the registry, not the rest of the server.
      expect((await failure(['image', 'ls'], client(password))).status).toBe(3);
    });

    test('others have no access, and no way to learn what is there', async () => {
      const none = await failure(['image', 'push', source, `${host}/default/app:v3`], {
        home: join(folder.path, 'none'),
        env: { DOCKER_CONFIG: join(folder.path, 'no-docker') },
      });
      expect(none).toMatchObject({ status: 3, code: 'UNAUTHORIZED' });
      const wrong = client(`${key.slice(0, -2)}AA`);
      expect(await failure(['image', 'push', source, `${host}/default/app:v3`], wrong)).toMatchObject({
        status: 3,
        hint: expect.stringContaining('DECANT_API_KEY') as string,
      });
      const other = client(await stranger());
      const pull = ['image', 'import', `registry:${host}/default/app:v1`];
      expect(await failure(pull, other)).toMatchObject({ status: 4, code: 'NOT_FOUND' });
      const push = ['image', 'push', source, `${host}/default/app:v1`];
      expect(await failure(push, other)).toMatchObject({ status: 4, code: 'NOT_FOUND' });
      await succeed(['image', 'push', source, `${host}/other/app:v1`], other);
    });
  },
);
