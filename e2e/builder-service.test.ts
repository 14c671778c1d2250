import { cp, mkdir, mkdtemp, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { findProgram } from '../packages/core/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { buildClient, type BuildClient } from './support/build-client.ts';
import { decantJson, startDecant, type RunningDecant } from './support/decant.ts';
import { lastingTraces } from './support/leftovers.ts';
import { have, isRoot, output } from './support/programs.ts';

const LIMITS = ['memory=256M', 'disk=256M', 'log=100K', 'image=24M', 'processes=200', 'time=120'];
const SHELL =
  'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox","mkdir","/tmp"]\nRUN ["/bin/busybox","--install","-s","/bin"]\n';

describe.skipIf(!isRoot || !have('busybox', 'bwrap', 'buildah', 'mkfs.ext4'))(
  '[backend:buildah] the image-builder',
  () => {
    let folder: TemporaryDirectory;
    let server: RunningDecant;
    let data: string;
    let url: string;
    let client: BuildClient;
    let stranger: BuildClient;

    const start = async (port: number) => {
      const limits = LIMITS.flatMap((limit) => ['--build-limit', limit]);
      const args = ['serve', '--port', String(port), '--data', data, ...limits];
      server = startDecant(args, { home: join(folder.path, 'unused'), timeoutMs: 1_800_000 });
      await server.seen(/Use it with/);
      return server.stdout().split('\n') as [url: string, key: string];
    };
    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-');
      data = join(folder.path, 'server');
      let key: string;
      [url, key] = await start(0);
      client = buildClient(url, key);
      const other = await decantJson<{ key: string }>(['key', 'create', '--namespace', 'other'], { home: data });
      stranger = buildClient(url, other.key);
      const base = await client.build({ image_name: 'shell' }, await context(SHELL));
      expect(base.end).toEqual({ done: true });
      const theirs = await stranger.build({ image_name: 'shell' }, await context(SHELL));
      expect(theirs.end).toEqual({ done: true });
    });
    afterAll(async () => {
      await server?.[Symbol.asyncDispose]();
      await folder?.[Symbol.asyncDispose]();
    });

    async function context(dockerfile: string, files: Record<string, string> = {}, tarOptions: string[] = []) {
      const directory = await mkdtemp(join(folder.path, 'context-'));
      await cp((await findProgram('busybox'))!, join(directory, 'busybox'), { dereference: true });
      for (const [name, text] of Object.entries({ Dockerfile: dockerfile, ...files })) {
        await mkdir(join(directory, name, '..'), { recursive: true });
        await writeFile(join(directory, name), text);
      }
      await output('tar', [...tarOptions, '-czf', `${directory}.tar.gz`, '-C', directory, '.']);
      return `${directory}.tar.gz`;
    }
    const failing = async (run: string, name = 'fails') =>
      (await client.build({ image_name: name, cache_key: 'failing' }, await context(`FROM shell\n${run}\n`))).status;
    const codeOf = async (run: string) => (await failing(run)).error.code;

    test('builds, ends its log once and for everybody who comes later, and registers the image', async () => {
      const dockerfile = `FROM shell\nARG WHO\nCOPY . /src\nRUN echo "hello $WHO"; echo '{"done":true}'; echo '{"error":"x"}'; ls /src/d\n`;
      const fields = {
        image_name: 'app:v1',
        build_args: '{"WHO":"world"}',
        nydus_convert: 'false',
        cache_key: 'team/app',
      };
      const built = await client.build(fields, await context(dockerfile, { 'd/f': 'x' }, ['--format', 'pax']));
      expect(built.lines).toEqual(expect.arrayContaining(['hello world', ' {"done":true}', ' {"error":"x"}', 'f']));
      expect(built.end).toEqual({ done: true });
      const { build_id: id, image_ref: ref } = built.status;
      expect(ref).toMatch(new RegExp(`^${new URL(url).host}/default/app:v1@sha256:[0-9a-f]{64}$`));
      expect(await client.follow(id)).toEqual({ lines: built.lines, ends: [{ done: true }] });
      const snapshot = await client.call('POST', '/v1/snapshots', {
        image: ref,
        architecture: 'amd64',
        tags: { a: 'b' },
      });
      expect(snapshot).toMatchObject({ status: 201, body: { format: 'ext4', tags: { a: 'b' }, memory: false } });
      const alias = { alias: 'team@app' };
      expect((await client.call('POST', `/v1/snapshots/${snapshot.body.id}/aliases`, alias)).status).toBe(204);
      const found = await client.call('GET', '/v1/snapshots/@team%40app');
      expect(found.body).toEqual(snapshot.body);
      const wrong = await client.call('POST', '/v1/snapshots', { image: ref, architecture: 'arm64' });
      expect(wrong).toMatchObject({ status: 400, body: { code: 'BUILD_PLATFORM_UNSUPPORTED', errors: [{}] } });
      expect((await stranger.call('POST', '/v1/snapshots', { image: ref })).status).toBe(404);
      expect((await stranger.call('GET', '/v1/snapshots/@team%40app')).status).toBe(404);
    });

    test('shares layers by cache key, and never with another namespace', async () => {
      const archive = await context('FROM shell\nRUN echo run-for-real\n');
      const fields = { image_name: 'cached', cache_key: 'k/1' };
      const ran = async (who: BuildClient, change: Record<string, string> = {}) => {
        const { end, lines } = await who.build({ ...fields, tag: `${Math.random()}`, ...change }, archive);
        expect(end, lines.join('\n')).toEqual({ done: true });
        return lines.includes('run-for-real');
      };
      expect(await ran(client, { image_name: 'cached:1' })).toBe(true);
      expect(await ran(client, { image_name: 'cached:2' })).toBe(false);
      expect(await ran(stranger, { image_name: 'cached:3' })).toBe(true);
      expect(await ran(client, { image_name: 'cached:4', cache_key: 'k/2' })).toBe(true);
      expect(await ran(client, { image_name: 'cached:5', cache: 'ignore' })).toBe(true);
      expect(await ran(client, { image_name: 'cached:6' })).toBe(false);
      expect(await ran(client, { image_name: 'cached:7', cache: 'refresh' })).toBe(true);
      expect(await ran(client, { image_name: 'cached:8' })).toBe(false);
    });

    test('answers bad requests and strangers as the contract says', async () => {
      const archive = await context('FROM shell\nRUN true\n');
      const first = await client.submit({ image_name: 'keyed' }, archive, { 'idempotency-key': 'once' });
      const again = await client.submit({ image_name: 'keyed' }, archive, { 'idempotency-key': 'once' });
      const { build_id: id } = (await first.json()) as { build_id: string };
      expect([first.status, ((await again.json()) as { build_id: string }).build_id]).toEqual([202, id]);
      const other = await client.submit({ image_name: 'other' }, archive, { 'idempotency-key': 'once' });
      expect([other.status, await other.json()]).toMatchObject([409, { code: 'CONFLICT', details: { buildId: id } }]);
      for (const path of [`/builds/${id}`, `/builds/${id}/logs`]) {
        const answer = await stranger.call('GET', path);
        expect(answer).toMatchObject({ status: 404, type: 'application/json' });
        expect(answer.body).toMatchObject({
          code: 'NOT_FOUND',
          message: expect.any(String),
          errors: [expect.any(Object)],
        });
      }
      expect((await stranger.call('DELETE', `/builds/${id}`)).status).toBe(204);
      expect((await client.follow(id)).ends).toEqual([{ done: true }]);
      for (const bad of [
        { image_name: 'A B' },
        { image_name: 'a', cache_key: 'Bad:Key' },
        { image_name: 'a', build_args: '[' },
      ]) {
        const answer = await client.submit(bad, archive);
        expect([answer.status, Object.keys((await answer.json()) as object)]).toEqual([
          400,
          expect.arrayContaining(['code', 'message', 'errors']),
        ]);
      }
      const nobody = buildClient(url, 'wrong');
      expect(await nobody.call('GET', `/builds/${id}/logs`)).toMatchObject({ status: 401, type: 'application/json' });
      expect((await nobody.submit({ image_name: 'a' }, archive)).status).toBe(401);
      const broken = join(folder.path, 'broken.tar.gz');
      await writeFile(broken, 'this is no archive');
      expect(await (await client.submit({ image_name: 'a' }, broken)).json()).toMatchObject({
        code: 'BUILD_CONTEXT_INVALID',
      });
    });

    test('says of each way to fail which it was', async () => {
      expect(await failing('RUN echo last words; exit 7')).toMatchObject({
        status: 'failed',
        error: { code: 'BUILD_STEP_FAILED', details: { exitCode: 7, lastLines: ['last words'] } },
      });
      expect(await codeOf('RUN x=aaaaaaaaaaaaaaaa; while true; do x="$x$x"; done')).toBe('BUILD_OUT_OF_MEMORY');
      expect(await codeOf('RUN dd if=/dev/zero of=/big bs=1M 2>/dev/null')).toBe('BUILD_OUT_OF_DISK');
      expect(await codeOf('RUN f() { f & f; }; f; sleep 3; false')).toBe('BUILD_PROCESSES');
      expect(await codeOf('RUN dd if=/dev/urandom of=/big bs=1M count=32')).toBe('BUILD_IMAGE_BYTES');
      const flood = await failing('RUN yes flood');
      expect(flood.error).toMatchObject({
        code: 'BUILD_LOG_BYTES',
        details: { lastLines: expect.arrayContaining(['flood']) },
      });
      const fetching = await failing('RUN nc -w 2 192.0.2.1 80');
      expect(fetching.error).toMatchObject({
        code: 'BUILD_STEP_FAILED',
        hint: expect.stringContaining('have no network'),
      });
      expect(await codeOf('COPY nothing /there')).toBe('BUILD_STEP_FAILED');
      expect(await codeOf('RUNN x')).toBe('DOCKERFILE_INVALID');
      const foreign = await client.build({ image_name: 'x' }, await context('FROM registry.invalid/a/b\n'));
      expect(foreign.status.error).toMatchObject({ code: 'BUILD_BASE_UNAVAILABLE' });
      // Nothing of what failed can be registered.
      expect((await client.call('POST', '/v1/snapshots', { image: `${new URL(url).host}/default/fails` })).status).toBe(
        404,
      );
    });

    test('runs ten that came at once two at a time, and tells the others their places', async () => {
      const archive = await context('FROM shell\nRUN sleep 0.3\n');
      const names = Array.from({ length: 10 }, (_, index) => `ten-${index}`);
      const all = Promise.all(names.map((name) => client.build({ image_name: name, cache_key: name }, archive)));
      let [most, longest] = [0, 0];
      for (let over = false; !over; await sleep(50)) {
        const { body } = await client.call('GET', '/builds?limit=10');
        const ours = (body.data as { image_name: string; status: string; position?: number }[]).filter(
          ({ image_name: name }) => name.startsWith('ten-'),
        );
        most = Math.max(most, ours.filter(({ status }) => status === 'running').length);
        // One that has begun since the page was read has no place any more.
        const places = ours.flatMap(({ status, position }) => (status === 'queued' ? (position ?? []) : []));
        expect(places).toEqual(places.map((_, index) => places.length - index));
        longest = Math.max(longest, places.length);
        over = ours.length === 10 && ours.every(({ status }) => status === 'succeeded' || status === 'failed');
      }
      expect((await all).map(({ end }) => end)).toEqual(names.map(() => ({ done: true })));
      expect(most).toBe(2);
      expect(longest).toBeGreaterThanOrEqual(4);
    });

    test('lets a build see neither another one nor the service', async () => {
      const secret = `secret-${Math.random()}`;
      const victim = await stranger.submit(
        { image_name: 'victim' },
        await context(`FROM shell\nCOPY s /s\nRUN echo up; sleep 600\n`, { s: secret }),
      );
      const { build_id: id } = (await victim.json()) as { build_id: string };
      for (let i = 0; i < 900 && (await stranger.status(id)).log_lines < 5; i++) await sleep(100);
      const look = [
        `grep -rl "${secret.slice(0, 9)}.*${secret.slice(10)}" /proc/1/root/build/work /proc/1/root/in /proc/1/root/tmp /proc/1/root/run 2>/dev/null`,
        `cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'`,
        `ls /proc/1/root${data} /proc/1/root/root /proc/1/root/var/run /proc/1/root/run/docker.sock`,
        `ls /proc | grep -c '^[0-9]'`,
        // Not wget: it needs libraries of the host that are not there, and fails without having tried.
        `nc -w 2 127.0.0.1 ${new URL(url).port}`,
        `nc -w 2 192.0.2.1 80`,
        `mkdir /m && mount -t tmpfs x /m 2>/dev/null || echo no mount`,
      ];
      const hostile = await client.build(
        { image_name: 'hostile' },
        await context(`FROM shell\n${look.map((line) => `RUN ${line}; true`).join('\n')}\n`),
      );
      expect(hostile.end).toEqual({ done: true });
      // The Dockerfile itself is among what can be read, and is shown in the log.
      const said = hostile.lines.filter((line) => !line.startsWith('['));
      expect(said.join('\n')).not.toContain(secret);
      expect(said.join('\n')).not.toMatch(/DECANT|ok|sqlite/);
      expect(said).toContain('no mount');
      expect(said).toContain("nc: can't connect to remote host (127.0.0.1): Connection refused");
      expect(said).toContain("nc: can't connect to remote host (192.0.2.1): Network is unreachable");
      expect(await stranger.status(id)).toMatchObject({ status: 'running' });
      await stranger.call('DELETE', `/builds/${id}`);
      expect((await stranger.follow(id)).ends).toEqual([{ error: 'The build was cancelled.' }]);
    });

    test('ends a cancelled build within five seconds, after the answer, and leaves nothing of it', async () => {
      // A machine that is busy with something else may take longer once; three times in a row it is the service.
      const took: number[] = [];
      do took.push(await cancelled(`8${Date.now() % 1e7}`));
      while (took.at(-1)! > 5000 && took.length < 3);
      expect(Math.min(...took)).toBeLessThanOrEqual(5000);
      expect((await client.call('DELETE', '/builds/unknown')).status).toBe(204);
    });

    /** Cancels a build in its step; gives the milliseconds until nothing of it runs. */
    async function cancelled(mark: string): Promise<number> {
      const submitted = await client.submit(
        { image_name: 'slow' },
        await context(`FROM shell\nRUN echo go; sleep ${mark} & sleep ${mark}\n`),
      );
      const { build_id: id } = (await submitted.json()) as { build_id: string };
      const following = client.follow(id).then((log) => ({ ...log, at: performance.now() }));
      const isRunning = async () =>
        (await output('ps', ['-eo', 'args'])).split('\n').filter((line) => line === `sleep ${mark}`).length;
      for (let i = 0; i < 900 && (await isRunning()) < 2; i++) await sleep(100);
      const volumes = await readdir(join(data, 'build-volumes'));
      const asked = performance.now();
      expect((await client.call('DELETE', `/builds/${id}`)).status).toBe(204);
      const answered = performance.now();
      expect((await client.call('DELETE', `/builds/${id}`)).status).toBe(204);
      const { ends, at } = await following;
      expect(ends).toEqual([{ error: 'The build was cancelled.' }]);
      expect(at).toBeGreaterThan(answered);
      while ((await isRunning()) > 0 && performance.now() - asked < 60_000) await sleep(50);
      const took = performance.now() - asked;
      expect(await isRunning()).toBe(0);
      expect(await client.status(id)).toMatchObject({ status: 'cancelled', error: { code: 'BUILD_CANCELLED' } });
      await expect.poll(async () => (await readdir(join(data, 'build-volumes'))).length).toBeLessThan(volumes.length);
      return took;
    }

    test('a server that is killed in a build takes it up again, and nothing of the first try stays', async () => {
      const mark = `9${Date.now() % 1e7}`;
      const submitted = await client.submit(
        { image_name: 'again' },
        await context(`FROM shell\nRUN echo up; sleep 6; : ${mark}\n`),
      );
      const { build_id: id } = (await submitted.json()) as { build_id: string };
      for (let i = 0; i < 900 && (await client.status(id)).log_lines < 3; i++) await sleep(100);
      const before = (await readdir(join(data, 'build-volumes'))).filter((name) => name.endsWith('.ext4'));
      server.signal('SIGKILL');
      await server.ended;
      const following = client.follow(id);
      await start(Number(new URL(url).port));
      const { lines, ends } = await following;
      expect(ends).toEqual([{ done: true }]);
      expect(lines).toContain('The build starts again: what ran it before is gone.');
      expect(await client.status(id)).toMatchObject({ status: 'succeeded', attempt: 2 });
      const after = async () => (await readdir(join(data, 'build-volumes'))).filter((name) => name.endsWith('.ext4'));
      await expect.poll(async () => (await after()).length).toBeLessThanOrEqual(before.length);
      for (const name of await readdir(join(data, 'scratch')))
        await expect.poll(() => readdir(join(data, 'scratch', name))).toEqual([]);
      expect(await lastingTraces(mark)).toEqual([]);
    });
  },
);
