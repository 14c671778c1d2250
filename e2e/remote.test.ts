import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import {
  createRemoteBuilder,
  memoryContext,
  type RemoteBuildEvent,
  type RemoteBuildResult,
} from '../packages/builder-remote/src/index.ts';
import { createNodeFetch, type NodeFetch } from '../packages/transport/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { cuttingProxy } from './support/cutting-proxy.ts';
import { decant, startDecant, type DecantOptions, type RunningDecant } from './support/decant.ts';
import { have, isRoot } from './support/programs.ts';

const DOCKERFILE = 'FROM scratch\nCOPY busybox /bin/sh\n';

/** The whole way over a real server, with builds confined as those of any client are. */
describe.skipIf(!isRoot || !have('busybox', 'buildah', 'bwrap', 'mkfs.ext4'))(
  '[backend:buildah] builds at a service elsewhere',
  () => {
    let folder: TemporaryDirectory;
    let server: RunningDecant;
    let url: string;
    let key: string;
    let context: string;
    let busybox: Uint8Array;
    let http: NodeFetch;

    const serve = async (data: string) => {
      const started = startDecant(['serve', '--port', '0', '--data', data], {
        home: join(folder.path, 'unused'),
        timeoutMs: 1_800_000,
      });
      await started.seen(/Use it with/);
      return started;
    };

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-remote-');
      server = await serve(join(folder.path, 'server'));
      [url = '', key = ''] = server.stdout().split('\n');
      http = createNodeFetch();
      busybox = await readFile('/bin/busybox');
      context = join(folder.path, 'ctx');
      await mkdir(context);
      await copyFile('/bin/busybox', join(context, 'busybox'));
      await writeFile(join(context, 'Dockerfile'), `${DOCKERFILE}RUN echo a step of $0\n`);
    });
    afterAll(async () => {
      await http?.close();
      await server?.[Symbol.asyncDispose]();
      await folder?.[Symbol.asyncDispose]();
    });

    const client = (env: Readonly<Record<string, string | undefined>> = {}): DecantOptions => ({
      home: join(folder.path, 'client'),
      env: { DECANT_URL: url, DECANT_API_KEY: key, ...env },
    });
    const builderAt = (baseUrl: string, patienceMs = 60_000) =>
      createRemoteBuilder({ baseUrl, fetch: http.fetch, token: key, patienceMs });
    const contextOf = (run: string, more: readonly { path: string; content: string | Uint8Array }[] = []) =>
      memoryContext([
        { path: 'Dockerfile', content: `${DOCKERFILE}${run}` },
        { path: 'busybox', content: busybox, mode: 0o755 },
        ...more,
      ]);
    const finish = async (
      generator: AsyncGenerator<RemoteBuildEvent, RemoteBuildResult>,
      onEvent: (event: RemoteBuildEvent) => void = () => undefined,
    ) => {
      const events: RemoteBuildEvent[] = [];
      for (;;) {
        const step = await generator.next();
        if (step.done === true) return { result: step.value, events };
        events.push(step.value);
        onEvent(step.value);
      }
    };
    const linesOf = (events: readonly RemoteBuildEvent[]) =>
      events.flatMap((event) => (event.type === 'log' ? [event.line] : []));

    test('a client without an engine builds, names, registers and finds it again', async () => {
      // No engine would be found there.
      const without = client({ PATH: '/nonexistent' });
      const created = await decant(['image', 'create', context, '-n', 'app', '--streaming', '--json'], without);
      expect(created.stderr).toContain(`the image-builder at ${url} builds`);
      expect(created.stderr).toContain('a step of /bin/sh');
      expect(created.status, created.stderr).toBe(0);
      const { image } = JSON.parse(created.stdout) as { image: { id: string } };

      const snapshot = await decant(
        [
          'snapshot',
          'create',
          context,
          '-n',
          'app',
          '--streaming',
          '--alias',
          'prod',
          '-t',
          'team=a',
          '--ttl',
          '7d',
          '--ci',
        ],
        without,
      );
      expect(snapshot.status, snapshot.stderr).toBe(0);
      const id = snapshot.stdout.trimEnd().split('\n').at(-1)!;
      const shown = await decant(['snapshot', 'get', '@prod', '--json'], without);
      expect(JSON.parse(shown.stdout)).toMatchObject({
        id,
        image_id: image.id,
        tags: { team: 'a' },
        ttl: 7 * 86_400,
        aliases: ['prod'],
        format: 'cas-streaming',
      });
      expect((await decant(['snapshot', 'retire', '@prod'], without)).status).toBe(0);
      const left = await decant(['snapshot', 'ls', '--exclude-retired', '--json'], without);
      expect((JSON.parse(left.stdout) as { snapshots: unknown[] }).snapshots).toEqual([]);
      const all = await decant(['snapshot', 'ls', '--tag', 'team=a'], without);
      expect(all.stdout).toMatch(new RegExp(`^${id} .*cas-streaming .*yes .*team=a$`, 'm'));
      expect((await decant(['snapshot', 'get', '@nothing'], without)).status).toBe(4);
      const builds = await decant(['build', 'ls', '--json'], without);
      const [last] = (JSON.parse(builds.stdout) as { builds: { build_id: string; status: string }[] }).builds;
      expect(last!.status).toBe('succeeded');
      const log = await decant(['build', 'logs', last!.build_id], without);
      expect(log.stdout).toContain('CACHED [3/3] RUN echo a step of $0\n');
    });

    test('what cannot be is said before anything is sent', async () => {
      const odd = await decant(['image', 'create', context], client({ TOGETHER_REMOTE_ARCHITECTURE: 'sparc' }));
      expect([odd.status, odd.stderr]).toEqual([2, expect.stringContaining('TOGETHER_REMOTE_ARCHITECTURE is "sparc"')]);
      const wrong = await decant(['image', 'create', context], client({ DECANT_API_KEY: key.slice(0, -1) }));
      expect([wrong.status, wrong.stderr]).toEqual([3, expect.stringContaining('[UNAUTHORIZED]')]);
      const secret = await decant(['image', 'create', context, '--secret', 'id=token,env=HOME'], client());
      expect([secret.status, secret.stderr]).toEqual([2, expect.stringMatching(/cannot be given secrets[^]*--local/)]);
      const needy = join(folder.path, 'needy');
      await mkdir(needy, { recursive: true });
      const mount = '--mount=type=secret,id=token,required=true';
      await writeFile(join(needy, 'Dockerfile'), `${DOCKERFILE}RUN ${mount} cat /run/secrets/token\n`);
      const without = await decant(['image', 'create', needy], client());
      expect([without.status, without.stderr]).toEqual([2, expect.stringMatching(/:3 needs the secret "token"/)]);
      const failing = join(folder.path, 'failing');
      await mkdir(failing, { recursive: true });
      await copyFile('/bin/busybox', join(failing, 'busybox'));
      await writeFile(join(failing, 'Dockerfile'), `${DOCKERFILE}RUN echo the last words; exit 7\n`);
      const failed = await decant(['image', 'create', failing, '-n', 'failing'], client());
      expect([failed.status, failed.stderr]).toEqual([5, expect.stringContaining('the last words')]);
      expect(failed.stderr).toContain('[BUILD_STEP_FAILED]');
    });

    test('login stores the server and the key for its owner alone, and only what works', async () => {
      const home = join(folder.path, 'logged-in');
      const own: DecantOptions = { home, env: { DECANT_URL: undefined, DECANT_API_KEY: undefined } };
      expect((await decant(['login', url], { ...own, input: 'dk_wrong\n' })).status).toBe(3);
      expect((await decant(['login', url], { ...own, input: `${key}\n` })).status).toBe(0);
      expect((await stat(join(home, 'login.json'))).mode & 0o777).toBe(0o600);
      const listed = await decant(['image', 'ls', '--json'], own);
      expect(listed.stdout).toContain('"name":"app"');
      // The key goes nowhere else.
      const elsewhere = await decant(['image', 'ls'], {
        home,
        env: { DECANT_URL: url.replace('127.0.0.1', 'localhost') },
      });
      expect(elsewhere.status).toBe(3);
      expect((await decant(['logout'], own)).status).toBe(0);
      expect((await decant(['image', 'ls', '--json'], own)).stdout).toBe('{"images":[]}\n');
    });

    test('a build is followed line by line over 20 cut connections', async () => {
      await using proxy = await cuttingProxy(url);
      const run =
        'RUN i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo "line $i"; [ $((i%50)) -eq 0 ] && sleep 0.2; done; true\n';
      // By bytes and not by the clock: the headers and some lines of 300 that have 30 bytes each as they travel.
      proxy.cutStreams(20, 600);
      const { result, events } = await finish(builderAt(proxy.url).build({ context: contextOf(run) }));
      expect(proxy.cuts()).toBe(20);
      const lines = linesOf(events);
      expect(lines.filter((line) => line.startsWith('line '))).toEqual(
        Array.from({ length: 300 }, (_, index) => `line ${index + 1}`),
      );
      const stored: string[] = [];
      for await (const item of builderAt(url).logs(result.buildId)) if (item.type === 'line') stored.push(item.line);
      expect(lines).toEqual(stored);
    });

    test('of 2,000 files only the one that changed travels, and an upload that is cut goes on', async () => {
      await using proxy = await cuttingProxy(url);
      const files = Array.from({ length: 2000 }, (_, index) => ({
        path: `src/${index % 97}/file-${index}.txt`,
        content: `${randomBytes(90).toString('base64')}\n`,
      }));
      // In the files: the manifest has a third of it.
      proxy.cutAfterBytes(250_000);
      const run = 'COPY src /src\n';
      const first = await finish(builderAt(proxy.url).build({ context: contextOf(run, files) }));
      expect(first.result.image).toContain('@sha256:');
      expect(proxy.cuts()).toBe(1);
      files[1321] = { ...files[1321]!, content: 'changed\n' };
      const before = proxy.sentBytes();
      const second = await finish(
        builderAt(proxy.url).build({
          context: contextOf(`${run}RUN sh -c 'while read l; do echo $l; done' < /src/60/file-1321.txt\n`, files),
        }),
      );
      const sent = proxy.sentBytes() - before;
      expect(linesOf(second.events)).toContain('changed');
      // A manifest of 2,000 digests, which cannot be compressed, and names.
      expect(sent).toBeLessThan(250_000);
      // The file itself, and the Dockerfile, which changed as well.
      expect(second.result.sentBytes).toBeLessThan(1000);
    });

    test('Ctrl-C cancels at the service and ends with 130', async () => {
      const slow = join(folder.path, 'slow');
      await mkdir(slow, { recursive: true });
      await copyFile('/bin/busybox', join(slow, 'busybox'));
      await writeFile(join(slow, 'Dockerfile'), `${DOCKERFILE}RUN echo it sleeps now; sleep 600\n`);
      await using running = startDecant(['image', 'create', slow, '-n', 'slow'], client());
      await running.seen(/it sleeps now$/m);
      const started = performance.now();
      running.signal('SIGINT', 'group');
      expect((await running.ended).status).toBe(130);
      expect(performance.now() - started).toBeLessThan(120_000);
      const last = async () => {
        const listed = await decant(['build', 'ls', '--limit', '1', '--json'], client());
        return (JSON.parse(listed.stdout) as { builds: { status: string; build_id: string }[] }).builds[0];
      };
      await expect.poll(async () => (await last())?.status).toBe('cancelled');
      const build = await last();
      const again = await decant(['build', 'cancel', build!.build_id], client());
      expect([again.status, again.stderr]).toEqual([0, 'the build had ended already: cancelled\n']);
      expect((await decant(['build', 'cancel', 'nothing'], client())).status).toBe(4);
    });

    test('a service that is killed in the middle of a build leaves no client hanging', async () => {
      await using second = await serve(join(folder.path, 'killed'));
      const [at = '', own = ''] = second.stdout().split('\n');
      const builder = createRemoteBuilder({ baseUrl: at, fetch: http.fetch, token: own, patienceMs: 3000 });
      const generator = builder.build({ context: contextOf('RUN echo it sleeps now; sleep 600\n') });
      const started = { ms: Number.NaN };
      await expect(
        finish(generator, (event) => {
          if (event.type !== 'log' || event.line !== 'it sleeps now') return;
          started.ms = performance.now();
          second.signal('SIGKILL', 'group');
        }),
      ).rejects.toMatchObject({ code: 'HTTP_UNREACHABLE' });
      expect(performance.now() - started.ms).toBeLessThan(120_000);
    });
  },
);
