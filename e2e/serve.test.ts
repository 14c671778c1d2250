import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

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
import { have, isRoot } from './support/programs.ts';
import { storedMetadata } from './support/stored-metadata.ts';

describe.skipIf(!isRoot || !have('busybox', 'bwrap', 'nbdfuse', 'mkfs.ext4'))(
  '[backend:bubblewrap] decant serve and a client elsewhere',
  () => {
    let folder: TemporaryDirectory;
    let data: string;
    let server: RunningDecant;
    let url: string;
    let key: string;
    let source: string;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-');
      data = join(folder.path, 'server');
      source = await smallImage(folder.path, 'layout', { noiseBytes: 6 * 2 ** 20 });
      // The first start shows the key, the second does not.
      const first = startDecant(['serve', '--port', '0', '--data', data], {
        home: join(folder.path, 'unused'),
        timeoutMs: 1_800_000,
      });
      await first.seen(/Use it with/);
      const lines = first.stdout().split('\n');
      expect(lines).toHaveLength(3);
      key = lines[1]!;
      expect(key).toMatch(/^dk_[0-9a-f]{12}_[\w-]{43}$/);
      first.signal('SIGTERM');
      expect((await first.ended).status).toBe(0);
      server = startDecant(['serve', '--port', '0', '--data', data], {
        home: join(folder.path, 'unused'),
        timeoutMs: 1_800_000,
      });
      await server.seen(/Use it with/);
      expect(server.stdout()).toMatch(/^http:\/\/127\.0\.0\.1:\d+\n$/);
      url = server.stdout().trim();
    });
    afterAll(async () => {
      await server?.[Symbol.asyncDispose]();
      await folder?.[Symbol.asyncDispose]();
    });

    const client = (name: string, apiKey: string | undefined): DecantOptions => ({
      home: join(folder.path, name),
      env: { DECANT_URL: url, DECANT_API_KEY: apiKey },
    });
    const operator = (): DecantOptions => ({ home: data });

    test('a client with its own empty home imports, lists, verifies, runs and exports', async () => {
      const made = await decantJson<MadeImage>(
        ['image', 'import', source, '--streaming', '-n', 'team/app:v1'],
        client('one', key),
      );
      expect(made.image).toMatchObject({ name: 'team/app', tag: 'v1' });
      expect(made.chunks!.new).toBe(made.chunks!.total);
      expect(made.bytes.uploaded).toBeGreaterThan(6 * 2 ** 20);
      const again = await decantJson<MadeImage>(
        ['image', 'import', source, '--streaming', '-n', 'team/app:v2'],
        client('two', key),
      );
      expect(again.image.id).toBe(made.image.id);
      expect(again.chunks!.new).toBe(0);
      expect(again.bytes.uploaded).toBeLessThan(100_000);
      const { images } = await decantJson<{ images: { name: string; tag: string }[] }>(
        ['image', 'ls'],
        client('two', key),
      );
      expect(images.map(({ name, tag }) => `${name}:${tag}`)).toEqual(['team/app:v1', 'team/app:v2']);
      await succeed(['image', 'verify', 'team/app:v1'], client('two', key));
      const ran = await decant(
        ['run', 'team/app:v1', '--', 'sh', '-c', 'echo from afar; exit 5'],
        client('three', key),
      );
      expect(ran).toMatchObject({ status: 5, stdout: 'from afar\n' });
      const [here, there] = [join(folder.path, 'here.raw'), join(folder.path, 'there.raw')];
      await succeed(['image', 'export', 'team/app:v1', '--raw', here], client('three', key));
      await succeed(['image', 'export', made.image.id, '--sparse', there], operator());
      expect((await readFile(here)).equals(await readFile(there))).toBe(true);
      const whole = await decantJson<MadeImage>(['image', 'import', source, '-n', 'whole'], client('one', key));
      expect(whole.image.format).toBe('ext4');
      expect((await decant(['run', 'whole', '--', 'echo', 'whole'], client('one', key))).stdout).toBe('whole\n');
    });

    test('a key that is missing, wrong or revoked is refused with status 3', async () => {
      const wrong = key.slice(0, -4) + (key.endsWith('AAAA') ? 'BBBB' : 'AAAA');
      for (const bad of [undefined, wrong, 'nonsense', `dk_${randomBytes(6).toString('hex')}_${'A'.repeat(43)}`]) {
        expect(await failure(['image', 'ls'], client('bad', bad)), String(bad)).toMatchObject({
          status: 3,
          code: 'UNAUTHORIZED',
        });
        expect((await failure(['image', 'import', source, '--streaming'], client('bad', bad))).status).toBe(3);
      }
      const extra = await decantJson<{ id: string; key: string }>(['key', 'create'], operator());
      await succeed(['image', 'ls'], client('extra', extra.key));
      await succeed(['key', 'revoke', extra.id], operator());
      expect(await failure(['image', 'ls'], client('extra', extra.key))).toMatchObject({ status: 3 });
      expect((await decant(['key', 'ls'], operator())).stdout).toContain(extra.id);
      // Keys are stored as hashes.
      await expect.poll(async () => (await storedMetadata(data)).includes(extra.id)).toBe(true);
      expect((await storedMetadata(data)).includes(extra.key.slice(-43))).toBe(false);
    });

    test('another namespace sees nothing of it, and a chunk it did not upload is not its own', async () => {
      const other = await decantJson<{ key: string }>(['key', 'create', '--namespace', 'other'], operator());
      const stranger = client('stranger', other.key);
      const mine = await decantJson<{ id: string }>(['image', 'inspect', 'team/app:v1'], client('one', key));
      expect(await decantJson(['image', 'ls'], stranger)).toEqual({ images: [] });
      for (const ref of ['team/app:v1', mine.id]) {
        expect((await failure(['image', 'inspect', ref], stranger)).status, ref).toBe(4);
        expect((await failure(['image', 'verify', ref], stranger)).status, ref).toBe(4);
      }
      expect((await failure(['image', 'tag', mine.id, 'stolen'], stranger)).status).toBe(4);
      expect([3, 4]).toContain((await failure(['key', 'create', '--namespace', 'default'], stranger)).status);
      const made = await decantJson<MadeImage>(['image', 'import', source, '--streaming', '-n', 'app'], stranger);
      expect(made.image.id).toBe(mine.id);
      expect(made.chunks!.new).toBe(made.chunks!.total);
    });

    test('a signed URL that is changed is refused with 403', async () => {
      const { id } = await decantJson<{ id: string }>(['image', 'inspect', 'whole'], client('one', key));
      const answer = await fetch(`${url}/v1/images/${encodeURIComponent(id)}/archive`, {
        headers: { authorization: `Bearer ${key}` },
      });
      const signed = ((await answer.json()) as { url: string }).url;
      expect((await fetch(signed, { headers: { range: 'bytes=0-3' } })).status).toBe(206);
      expect((await fetch(signed, { method: 'PUT', body: 'x' })).status).toBe(403);
      expect((await fetch(signed, { method: 'DELETE' })).status).toBe(403);
      const changes: ((text: URL) => void)[] = [
        (at) => (at.pathname = at.pathname.replace('/default/', '/other/')),
        (at) => (at.pathname = at.pathname.replace('/images/', '/images/../packs/')),
        (at) => at.searchParams.set('X-Amz-Expires', '604800'),
        (at) => at.searchParams.set('X-Amz-Date', '20300101T000000Z'),
        (at) => at.searchParams.set('X-Amz-Signature', '0'.repeat(64)),
        (at) => at.searchParams.delete('X-Amz-Signature'),
        (at) => at.searchParams.set('uploadId', 'abc'),
        (at) => (at.search = ''),
      ];
      for (const [number, change] of changes.entries()) {
        const at = new URL(signed);
        change(at);
        expect((await fetch(at)).status, `change ${number}`).toBe(403);
      }
      expect((await fetch(`${url}/v1/images`)).status).toBe(401);
      expect(await (await fetch(`${url}/healthz`)).json()).toEqual({ status: 'ok' });
    });

    test('no server: status 7 and a sentence', async () => {
      const gone = await failure(['image', 'ls'], {
        home: join(folder.path, 'none'),
        env: { DECANT_URL: 'http://127.0.0.1:1', DECANT_API_KEY: key },
      });
      expect(gone).toMatchObject({ status: 7, code: 'HTTP_UNREACHABLE' });
      const nonsense = await failure(['image', 'ls'], {
        home: join(folder.path, 'none'),
        env: { DECANT_URL: 'nowhere' },
      });
      expect(nonsense).toMatchObject({ status: 2, code: 'CONFIG_INVALID' });
    });
  },
);
