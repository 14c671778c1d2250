import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { cp, link, mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

import { findProgram, run, type RunOptions } from '../packages/core/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { cuttingProxy } from './support/cutting-proxy.ts';
import { decantJson, ROOT, startDecant, type RunningDecant } from './support/decant.ts';
import { traces } from './support/leftovers.ts';
import { have, isRoot } from './support/programs.ts';

const SCRIPT = join(ROOT, 'e2e/support/contract_client.py');
// The one of Debian, whose packages the tests install.
const PYTHON = '/usr/bin/python3';
const hasPython = await run(PYTHON, ['-c', 'import requests'], { timeoutMs: 240_000 }).then(
  () => true,
  () => false,
);
const SHELL = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox","--install","-s","/bin"]\n';

interface Built {
  readonly build_id: string;
  readonly lines: readonly string[];
  readonly ends: readonly unknown[];
  readonly connections: number;
  readonly state: any;
  readonly deleted: readonly number[];
}

describe.skipIf(!isRoot || !hasPython || !have('busybox', 'bwrap', 'buildah', 'mkfs.ext4'))(
  '[backend:python3-requests] a client in Python that knows only the contract',
  () => {
    let folder: TemporaryDirectory;
    let server: RunningDecant;
    let url: string;
    let key: string;
    let strangerKey: string;
    let caller: ChildProcessByStdio<Writable, Readable, null>;
    let answers: AsyncIterator<string>;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-python-');
      const data = join(folder.path, 'server');
      server = startDecant(['serve', '--port', '0', '--data', data], {
        home: join(folder.path, 'unused'),
        timeoutMs: 1_800_000,
      });
      await server.seen(/Use it with/);
      [url = '', key = ''] = server.stdout().split('\n');
      const other = await decantJson<{ key: string }>(['key', 'create', '--namespace', 'other'], { home: data });
      strangerKey = other.key;
      caller = spawn(PYTHON, [SCRIPT, 'calls'], {
        env: { ...process.env, DECANT_URL: url, DECANT_API_KEY: key },
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      answers = createInterface({ input: caller.stdout })[Symbol.asyncIterator]();
      const base = await build(await context(SHELL.replace('RUN', 'RUN ["/bin/busybox","mkdir","/tmp"]\nRUN')), {
        image_name: 'shell',
      });
      expect(base.ends).toEqual([{ done: true }]);
    });
    afterAll(async () => {
      caller?.stdin.end();
      await server?.[Symbol.asyncDispose]();
      await folder?.[Symbol.asyncDispose]();
    });

    async function python<T>(args: readonly string[], options: RunOptions & { at?: string; as?: string } = {}) {
      const { at = url, as = key, ...more } = options;
      const env = { ...process.env, DECANT_URL: at, DECANT_API_KEY: as };
      const { stdout } = await run(PYTHON, [SCRIPT, ...args], { timeoutMs: 300_000, ...more, env });
      return JSON.parse(stdout.toString()) as T;
    }
    /** One process for all calls: most of the time of one would go to its start. */
    const call = async (method: string, path: string, body?: unknown, as = key) => {
      caller.stdin.write(`${JSON.stringify([method, path, body ?? null, as])}\n`);
      const { value, done } = await answers.next();
      if (done === true) throw new Error('the client in Python has ended');
      return JSON.parse(value) as { status: number; body: any };
    };
    const build = (directory: string, fields: Readonly<Record<string, string>>, ...args: readonly string[]) =>
      python<Built>([
        'build',
        directory,
        ...Object.entries(fields).map(([name, value]) => `${name}=${value}`),
        ...args,
      ]);

    async function context(dockerfile: string, files: Readonly<Record<string, string>> = {}): Promise<string> {
      const directory = await mkdtemp(join(folder.path, 'context-'));
      await cp((await findProgram('busybox'))!, join(directory, 'busybox'), { dereference: true });
      for (const [name, text] of Object.entries({ Dockerfile: dockerfile, ...files })) {
        await mkdir(join(directory, name, '..'), { recursive: true });
        await writeFile(join(directory, name), text);
      }
      return directory;
    }
    const problem = (code: unknown) =>
      expect.objectContaining({
        code,
        message: expect.any(String) as string,
        errors: expect.any(Array) as unknown[],
      }) as object;

    test('uploads as tarfile packs, in all of its formats, with what is left out left out', async () => {
      const directory = await context(
        'FROM shell\nCOPY . /src\nRUN cd /src && ls -i one two && readlink far && cat one\n',
        {
          one: 'content of one\n',
          [`${'long-name-'.repeat(12)}/${'and-longer-'.repeat(9)}ä`]: 'x',
        },
      );
      await link(join(directory, 'one'), join(directory, 'two'));
      await symlink('/nowhere/at/all', join(directory, 'far'));
      for (const form of ['pax', 'gnu']) {
        const built = await build(directory, { image_name: `tar-${form}`, nydus_convert: 'false' }, '--tar', form);
        expect(built.ends).toEqual([{ done: true }]);
        expect(built.lines).toEqual(expect.arrayContaining(['/nowhere/at/all', 'content of one']));
        const [first, second] = built.lines.flatMap((line) => /^ *(\d+) (one|two)$/.exec(line)?.[1] ?? []);
        expect(first).toBe(second);
        expect(built.state.image_ref).toMatch(new RegExp(`^${new URL(url).host}/default/tar-${form}:latest@sha256:`));
      }
    });

    test('reads one end of a log, however often it is cut off and whatever the steps print', async () => {
      await using proxy = await cuttingProxy(url);
      const lines = Array.from({ length: 40 }, (_, index) => `line ${index + 1}`);
      const run = `i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo "line $i"; sleep 0.02; done`;
      const directory = await context(`FROM shell\nRUN echo '{"done":true}'; echo '{"error":"no"}'; ${run}\n`);
      // The submission itself is not cut: without an idempotency key only the server's memory would stand for it.
      // Headers and some of 40 lines pass each time.
      proxy.cutStreams(20, 600);
      const built = await python<Built>(['build', directory, 'image_name=cut'], { at: proxy.url });
      expect(proxy.cuts()).toBe(20);
      expect(built.connections).toBeGreaterThan(20);
      // Read from the start each time, so the last connection had all of it.
      expect(built.lines.filter((line) => line.startsWith('line '))).toEqual(lines);
      expect(built.lines).toEqual(expect.arrayContaining([' {"done":true}', ' {"error":"no"}']));
      expect(built.ends).toEqual([{ done: true }]);
      expect(await python(['follow', built.build_id])).toMatchObject({ ends: [{ done: true }], connections: 1 });
    });

    test('is told of a failing step once, and can register nothing of it', async () => {
      const built = await build(await context('FROM shell\nRUN echo last words; exit 7\n'), { image_name: 'broken' });
      expect(built.ends).toEqual([{ error: expect.stringContaining('exit') as string }]);
      expect(built.state).toMatchObject({ status: 'failed', error: { details: { exitCode: 7 } } });
      expect(built.state.image_ref ?? null).toBeNull();
      const image = `${new URL(url).host}/default/broken:latest`;
      expect(await call('POST', '/v1/snapshots', { image })).toMatchObject({ status: 404, body: problem('NOT_FOUND') });
    });

    test('cancels, twice and what never was, and the step is gone', async () => {
      const mark = `7${Date.now() % 1e7}`;
      const started = performance.now();
      const slow = await context(`FROM shell\nRUN echo now; sleep ${mark} & sleep ${mark}\n`);
      const built = await build(slow, { image_name: 'slow' }, '--cancel-at', 'now');
      expect(performance.now() - started).toBeLessThan(400_000);
      expect(built.deleted).toEqual([204, 204]);
      expect(built.ends).toEqual([{ error: 'The build was cancelled.' }]);
      expect(built.state.status).toBe('cancelled');
      for (let round = 0; (await traces(mark)).length > 0 && round < 600; round++) await sleep(100);
      expect(await traces(mark)).toEqual([]);
      expect((await call('DELETE', `/builds/${crypto.randomUUID()}`)).status).toBe(204);
    });

    test('hears of an engine that is killed, and does not wait for it', async () => {
      const mark = `6${Date.now() % 1e7}`;
      const building = build(await context(`FROM shell\nRUN echo now; sleep ${mark}\n`), { image_name: 'shot' });
      let engine: number | undefined;
      for (let round = 0; round < 900 && engine === undefined; round++) {
        await sleep(100);
        engine = await engineOf(mark);
      }
      expect(engine).toBeDefined();
      process.kill(engine!, 'SIGKILL');
      const { ends, state } = await building;
      expect(ends).toEqual([{ error: expect.any(String) as string }]);
      expect(state.status).toBe('failed');
    });

    test('gets a typed refusal for what is wrong, and nothing of what is another’s', async () => {
      const directory = await context('FROM shell\nRUN true\n');
      for (const fields of [
        { image_name: 'A B' },
        { image_name: 'a', build_args: '[]' },
        { image_name: 'a', cache_key: 'Bad:Key' },
      ]) {
        expect(await build(directory, fields)).toEqual({ status: 400, body: problem(expect.any(String) as string) });
      }
      const outside = await build(directory, { image_name: 'a', dockerfile: '../Dockerfile' });
      expect(outside).toMatchObject({ body: problem(expect.any(String) as string) });
      const nobody = await python(['build', directory, 'image_name=a'], { as: 'dk_wrong' });
      expect(nobody).toMatchObject({ status: 401, body: problem('UNAUTHORIZED') });
      const { build_id: id } = await build(directory, { image_name: 'mine' });
      for (const path of [`/builds/${id}`, `/builds/${id}/logs`]) {
        expect(await call('GET', path, undefined, strangerKey)).toEqual({ status: 404, body: problem('NOT_FOUND') });
      }
    });

    test('registers, names, lists, moves and retires', async () => {
      const { state } = await build(await context('FROM shell\nRUN echo registered > /it\n'), {
        image_name: 'registered',
        nydus_convert: 'false',
      });
      const image = state.image_ref as string;
      const create = async (extra: object) => {
        const { status, body } = await call('POST', '/v1/snapshots', { image, ...extra });
        expect([status, body.retired_at ?? null, body.memory]).toEqual([201, null, false]);
        return body.id as string;
      };
      const ids = [
        await create({ architecture: 'amd64', tags: { team: 'a', n: '1' } }),
        await create({ ttl: 3600, tags: { team: 'a', n: '2' } }),
        await create({ tags: { team: 'b' } }),
      ] as const;

      // Newest first, page by page, each once.
      const first = (await call('GET', '/v1/snapshots?limit=2')).body;
      expect(first.data.map(({ id }: { id: string }) => id)).toEqual([ids[2], ids[1]]);
      const rest = (await call('GET', `/v1/snapshots?limit=2&cursor=${first.next_cursor}`)).body;
      expect([rest.data.map(({ id }: { id: string }) => id), rest.next_cursor]).toEqual([[ids[0]], null]);
      const found = async (query: string, as = key) =>
        ((await call('GET', `/v1/snapshots?${query}`, undefined, as)).body.data as { id: string }[]).map(
          ({ id }) => id,
        );
      expect(await found('tags[team]=a')).toEqual([ids[1], ids[0]]);
      expect(await found('tags%5Bteam%5D=a&tags%5Bn%5D=1')).toEqual([ids[0]]);
      expect(await found('limit=100', strangerKey)).toEqual([]);
      for (const query of ['limit=0', 'limit=101', 'limit=x', 'cursor=nothing', 'exclude_retired=perhaps']) {
        const answer = await call('GET', `/v1/snapshots?${query}`);
        expect(answer).toEqual({ status: 400, body: problem('USAGE') });
        expect(answer.body.errors[0]).toMatchObject({ parameter: query.split('=')[0] });
      }

      // In the order asked for, without what is missing.
      const missing = crypto.randomUUID();
      const batch = await call(
        'GET',
        `/v1/snapshots/batch?ids[]=${ids[0]}&ids[]=${missing}&ids[]=${ids[2].toUpperCase()}`,
      );
      expect(batch.body.map(({ id }: { id: string }) => id)).toEqual([ids[0], ids[2]]);
      const many = Array.from({ length: 101 }, () => `ids[]=${crypto.randomUUID()}`).join('&');
      for (const query of [`ids[]=${ids[0]}&ids[]=${ids[0]}`, many, 'ids[]=nothing', '']) {
        expect((await call('GET', `/v1/snapshots/batch?${query}`)).status).toBe(400);
      }

      // An alias moves.
      for (const id of [ids[0], ids[1]]) {
        expect((await call('POST', `/v1/snapshots/${id}/aliases`, { alias: 'team@prod' })).status).toBe(204);
        expect((await call('GET', '/v1/snapshots/@team%40prod')).body.id).toBe(id);
      }
      expect((await call('GET', `/v1/snapshots/${ids[0]}/aliases`)).body).toEqual([]);
      const aliases = (await call('GET', `/v1/snapshots/${ids[1]}/aliases`)).body;
      expect(aliases).toEqual([{ snapshot_id: ids[1], alias: 'team@prod', created_at: expect.any(String) as string }]);
      expect((await call('GET', '/v1/snapshots/@team%40prod', undefined, strangerKey)).status).toBe(404);
      expect((await call('DELETE', '/v1/snapshot-aliases/team%40prod')).status).toBe(204);
      expect((await call('GET', '/v1/snapshots/@team%40prod')).status).toBe(404);

      // What is retired stays, and is left out where that is asked for.
      const retired = await call('POST', `/v1/snapshots/${ids[2]}/retire`);
      expect(retired).toMatchObject({ status: 200, body: { id: ids[2], retired_at: expect.any(String) as string } });
      expect((await call('POST', `/v1/snapshots/${ids[2]}/retire`)).body).toEqual(retired.body);
      expect(await found('exclude_retired=true')).toEqual([ids[1], ids[0]]);
      expect(await found('exclude_retired=false')).toHaveLength(3);
      expect((await call('POST', `/v1/snapshots/${ids[0]}/retire`, undefined, strangerKey)).status).toBe(404);

      for (const wrong of [{ architecture: 'arm64' }, { ttl: 0 }, { tags: { '-a': 'x' } }, { architecture: 'sparc' }]) {
        expect((await call('POST', '/v1/snapshots', { image, ...wrong })).status).toBe(400);
      }
      const credentials = await call('POST', '/v1/container-registries/default/credentials');
      expect(credentials).toMatchObject({
        status: 201,
        body: { username: expect.any(String) as string, registry_url: `${new URL(url).host}/default` },
      });
    });
  },
);

/** Process id of the engine that runs the step with this mark: the nearest buildah above it. */
async function engineOf(mark: string): Promise<number | undefined> {
  const { stdout } = await run('ps', ['-eo', 'pid=,ppid=,args='], { timeoutMs: 20_000 });
  const rows = stdout
    .toString()
    .split('\n')
    .flatMap((line) => {
      const [, pid, parent, args = ''] = /^ *(\d+) +(\d+) (.*)$/.exec(line) ?? [];
      return pid === undefined ? [] : [{ pid: Number(pid), parent: Number(parent), args }];
    });
  let at = rows.find(({ args }) => args === `sleep ${mark}`);
  while (at !== undefined && !/^\S*buildah /.test(at.args)) at = rows.find(({ pid }) => pid === at!.parent);
  return at?.pid;
}
