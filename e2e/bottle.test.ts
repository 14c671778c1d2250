import { spawn, type ChildProcess } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { join } from 'node:path';

import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest';

import { decant, decantJson, failure, startDecant, succeed, type MadeImage } from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { lastingTraces } from './support/leftovers.ts';
import { have, isRoot, output } from './support/programs.ts';

const available = isRoot && have('bwrap', 'busybox', 'nbdfuse', 'fusermount3');

interface Listing {
  readonly bottles: readonly {
    readonly slug: string;
    readonly state: string;
    readonly info: {
      readonly command: readonly string[];
      readonly routes: readonly string[];
      readonly pid: number;
    } | null;
    readonly ended: { readonly exitCode: number | null; readonly reason: string } | null;
  }[];
}

describe.skipIf(!available)('[backend:bubblewrap] decant bottle', () => {
  let folder: TemporaryDirectory;
  let home: string;
  /** Stands for the internet: a network namespace with one address and a web server. */
  let internet: ChildProcess;
  let through: readonly string[];

  beforeAll(async () => {
    folder = await temporaryDirectory('decant-e2e-');
    home = join(folder.path, 'home');
    const source = await smallImage(folder.path, 'agent', {
      config: { Env: ['PATH=/bin', 'GREETING=good day'], User: '1000:1000', WorkingDir: '/job', Entrypoint: ['sh'] },
      entries: [
        { path: 'etc/passwd', data: 'root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/job:/bin/sh\n' },
        { path: 'job/', type: 'directory', uid: 1000, gid: 1000 },
        { path: 'job/old', data: 'old\n', uid: 1000, gid: 1000 },
        { path: 'job/kept', data: 'kept\n', uid: 1000, gid: 1000 },
      ],
      noiseBytes: 8 * 2 ** 20,
    });
    await succeed(['image', 'import', source, '-n', 'agent', '--streaming'], { home });
    await mkdir(join(home, 'bottles.d'), { mode: 0o755 });
    await writeFile(join(folder.path, 'notes'), 'read me\n');
    await mkdir(join(folder.path, 'web/v1'), { recursive: true });
    await writeFile(join(folder.path, 'web/v1/hello'), 'hello from outside\n');
    await writeFile(join(folder.path, 'web/secret'), 'not for agents\n');
    const serve =
      'ip link set lo up && ip addr add 203.0.113.10/32 dev lo && echo up && exec busybox httpd -f -p 203.0.113.10:80';
    internet = spawn('unshare', ['--net', '--', 'sh', '-c', `${serve} -h "$1"`, 'sh', join(folder.path, 'web')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(internet.stdout!, 'data');
    through = ['nsenter', '--net', '--target', String(internet.pid), '--'];
    await writeFile(
      join(home, 'bottles.d/base.yaml'),
      'image: agent\negress:\n  deny: [bad.example]\nlimits:\n  memory: 256M\n  wallTime: 10m\n',
    );
    await writeFile(
      join(home, 'bottles.d/reviewer.yaml'),
      [
        'extends: base',
        'egress:',
        '  routes:',
        '    - id: api',
        '      hosts: [203.0.113.10]',
        '      ports: [80]',
        '      matches:',
        '        - methods: [GET]',
        '          path: { type: prefix, value: /v1 }',
        'mounts:',
        `  - { type: read-only, source: ${join(folder.path, 'notes')}, target: /notes }`,
        'agent:',
        '  command: [sh, -c, \'echo "begins with $1"; cat /notes; echo "$TOKEN_NAME"; rm old; echo new > made; trap "echo bye; exit 9" TERM; while :; do sleep 0.1; done\', sh]',
        '  prompt: the prompt',
        '  env: { TOKEN_NAME: of the manifest }',
        '',
      ].join('\n'),
    );
    await chmod(join(home, 'bottles.d'), 0o755);
  });
  afterEach(async () => {
    const { bottles } = await decantJson<Listing>(['bottle', 'ls'], { home });
    for (const { slug } of bottles) await decant(['bottle', 'stop', '--grace', '0', slug], { home });
    await decant(['bottle', 'gc'], { home });
  });
  afterAll(async () => {
    internet?.kill('SIGKILL');
    await folder?.[Symbol.asyncDispose]();
  });

  const bottle = (args: readonly string[], input?: string) =>
    decant(['bottle', ...args], { home, ...(input === undefined ? {} : { input }) });
  const list = async (...flags: string[]) => (await decantJson<Listing>(['bottle', 'ls', ...flags], { home })).bottles;
  const nothingLeft = async () => {
    expect(await lastingTraces(home)).toEqual([]);
    expect((await readdir(join(home, 'bottles'))).filter((name) => name !== 'audit.d')).toEqual([]);
    expect(await readdir(join(home, 'scratch')).catch(() => [])).toEqual([]);
  };

  test('the plan says what will be allowed, and nothing happens', async () => {
    const shown = await bottle(['plan', 'reviewer', '--allow', 'more.example:8443']);
    expect(shown).toMatchObject({ status: 0 });
    for (const text of [
      '203.0.113.10 on 80',
      'GET',
      '/v1',
      'more.example on 8443',
      'bad.example',
      '/notes',
      'TOKEN_NAME',
      '256.0 MiB',
    ]) {
      expect(shown.stdout).toContain(text);
    }
    expect(shown.stdout).not.toContain('of the manifest');
    const { plan } = await decantJson<{ plan: object }>(['bottle', 'plan', 'reviewer'], { home });
    expect(plan).toMatchObject({ name: 'reviewer', image: 'agent', egress: { policy: { deny: ['bad.example'] } } });
    expect(JSON.stringify(plan)).not.toContain('of the manifest');
    expect(await readdir(join(home, 'bottles')).catch(() => [])).toEqual([]);
  });

  test('from a manifest to a snapshot, and a bottle of that', async () => {
    const run = await decant(['bottle', 'run', 'reviewer', '-d'], { home, through });
    expect(run).toMatchObject({ status: 0, stdout: 'reviewer\n' });
    expect(await list()).toMatchObject([
      { slug: 'reviewer', state: 'running', info: { routes: ['203.0.113.10:80 (some requests)'] } },
    ]);
    await expect
      .poll(async () => (await bottle(['logs', 'reviewer'])).stdout, { timeout: 120_000, interval: 300 })
      .toBe('begins with the prompt\nread me\nof the manifest\n');

    const inside = await bottle(
      ['exec', '-i', 'reviewer', '--', 'sh', '-c', 'id -u; pwd; cat; echo oops >&2; exit 7'],
      'typed',
    );
    expect(inside).toEqual({ status: 7, stdout: '1000\n/job\ntyped', stderr: 'oops\n' });
    const many = await Promise.all(
      Array.from({ length: 5 }, (_, i) =>
        bottle(['exec', '-e', `N=${i}`, '-w', '/', 'reviewer', '--', 'sh', '-c', 'pwd; exit $N']),
      ),
    );
    expect(many.map(({ status, stdout }) => [status, stdout])).toEqual([0, 1, 2, 3, 4].map((i) => [i, '/\n']));
    expect((await bottle(['exec', '--timeout', '1', 'reviewer', '--', 'sleep', '600'])).status).toBe(124);
    expect((await bottle(['exec', 'reviewer', '--', 'no-such-program'])).status).toBe(127);

    await writeFile(join(folder.path, 'given'), 'from here\n');
    await succeed(['bottle', 'cp', join(folder.path, 'given'), 'reviewer:/job/'], { home });
    expect((await bottle(['exec', 'reviewer', '--', 'cat', '/job/given'])).stdout).toBe('from here\n');
    const back = join(folder.path, 'back');
    await succeed(['bottle', 'cp', 'reviewer:/job', back], { home });
    expect((await readdir(back)).sort()).toEqual(['given', 'kept', 'made']);
    await succeed(['bottle', 'cp', 'reviewer:/job', back], { home });
    expect(await readdir(join(back, 'job'))).toHaveLength(3);
    expect(await failure(['bottle', 'cp', 'reviewer:/job', back], { home })).toMatchObject({
      status: 1,
      code: 'CONFLICT',
    });
    expect(await failure(['bottle', 'cp', 'reviewer:/nothing', join(folder.path, 'none')], { home })).toMatchObject({
      code: expect.stringMatching(/NOT_FOUND|USAGE/) as string,
    });

    const made = await decantJson<MadeImage>(['bottle', 'snapshot', 'reviewer', 'agent:worked'], { home });
    expect(made.image).toMatchObject({ name: 'agent', tag: 'worked' });
    expect(made.chunks!.reused).toBeGreaterThan(10);
    expect(made.chunks!.new).toBeLessThan(6);
    const parent = await decantJson<{ config: object }>(['image', 'inspect', 'agent'], { home });
    const child = await decantJson<{ config: object }>(['image', 'inspect', 'agent:worked'], { home });
    expect(child.config).toEqual(parent.config);

    const restored = await bottle(['run', '--image', 'agent:worked', '--', 'sh', '-c', 'ls; cat made given; exit 3']);
    expect(restored).toMatchObject({ status: 3, stdout: 'given\nkept\nmade\nnew\nfrom here\n' });

    const following = startDecant(['bottle', 'logs', '-f', '--tail', '1', 'reviewer'], { home });
    await following.seen(/of the manifest/);
    await succeed(['bottle', 'stop', 'reviewer'], { home });
    expect(await following.ended).toMatchObject({ status: 0, stdout: 'of the manifest\nbye\n' });
    expect(await list()).toEqual([]);
    expect((await list('--all')).at(0)).toMatchObject({ slug: 'reviewer', state: 'ended', ended: { exitCode: 9 } });
    // The shell may add on standard error that its sleep was terminated.
    expect((await bottle(['logs', 'reviewer', '--tail', '3'])).stdout).toMatch(/^(?:.*\n)*bye\n$/);
    expect(await failure(['bottle', 'stop', 'reviewer'], { home })).toMatchObject({ status: 4, code: 'NOT_FOUND' });
    await nothingLeft();
  });

  test('what a route allows is reached, all else is refused at once, and the audit says so', async () => {
    // Debian's static busybox cannot look names up, so that its wget is of no use here.
    const get = (url: string, address: string, port = 80) => {
      const { host, pathname, search } = new URL(url);
      const target = port === 80 ? `${pathname}${search}` : url;
      return `printf 'GET ${target} HTTP/1.0\\r\\nHost: ${host}\\r\\n\\r\\n' | busybox nc -w 5 ${address} ${port} | busybox sed -n '1p;$p'`;
    };
    const script = [
      get('http://203.0.113.10/v1/hello', '203.0.113.10'),
      get('http://203.0.113.11/secret?token=t0ps3cret', '203.0.113.11'),
      get('http://denied.example/', '127.0.0.1', 9099),
      'busybox nc -w 3 192.0.2.1 22 </dev/null 2>/dev/null; echo "ended with $?"',
    ].join('; ');
    const args = ['run', '--image', 'agent', '--allow', '203.0.113.10', '--', 'sh', '-c', script];
    const { status, stdout } = await decant(['bottle', ...args], { home, through });
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^HTTP\/1\.[01] 200 [^\n]*\nhello from outside\nHTTP\/1\.[01] 403 [^]*HTTP\/1\.[01] 403 [^]*ended with 1\n$/,
    );
    const audit = await bottle(['logs', '--audit', 'agent']);
    for (const text of ['203.0.113.10', '203.0.113.11', 'denied.example']) expect(audit.stdout).toContain(text);
    expect(audit.stdout).not.toContain('t0ps3cret');
    const hello = ['agent', '--', '-c', get('http://203.0.113.10/v1/hello', '203.0.113.10')];
    const fenced = await decant(['run', '--allow', '203.0.113.10', ...hello], { home, through });
    expect(fenced).toMatchObject({ status: 0, stdout: expect.stringContaining('hello from outside\n') as string });
    const closed = await decant(['run', ...hello], { home, through });
    expect(closed).toMatchObject({ stdout: '' });
    await nothingLeft();
  });

  test('in the foreground it ends with its agent, with a signal, or with its time', async () => {
    const through = await bottle(
      ['run', '--image', 'agent', '-e', 'A=b', '--', 'sh', '-c', 'cat; echo "$A $GREETING" >&2; exit 5'],
      'in',
    );
    expect(through).toMatchObject({
      status: 5,
      stdout: 'in',
      stderr: expect.stringContaining('b good day\n') as string,
    });
    await using running = startDecant(
      ['bottle', 'run', '--image', 'agent', '--', 'sh', '-c', 'echo up; exec sleep 600'],
      { home },
    );
    await running.seen(/up/);
    running.signal('SIGTERM');
    expect((await running.ended).status).toBe(130);
    const late = await failure(
      ['bottle', 'run', '--image', 'agent', '--time', '6', '--', 'sh', '-c', 'exec sleep 600'],
      { home },
    );
    expect(late).toMatchObject({ status: 7, code: 'TIMEOUT' });
    await nothingLeft();
  });

  test('a supervisor that is killed takes everything with it; gc removes the rest, once', async () => {
    await succeed(['bottle', 'run', '--image', 'agent', '-d', 'victim', '--', 'sleep', '4714.5'], { home });
    await succeed(['bottle', 'run', '--image', 'agent', '-d', 'other', '--', 'sleep', '600'], { home });
    const waiting = bottle(['exec', 'victim', '--', 'sleep', '600']);
    await expect
      .poll(async () => (await list()).find(({ slug }) => slug === 'victim')?.info, { timeout: 120_000, interval: 300 })
      .toMatchObject({ counts: { execs: 1 } });
    const { pid } = (await list()).find(({ slug }) => slug === 'victim')!.info!;
    process.kill(pid, 'SIGKILL');
    expect(await waiting).toMatchObject({ status: 1, stderr: expect.stringContaining('[BOTTLE_ENDED]') as string });
    expect(await lastingTraces('4714.5')).toEqual([]);
    expect(await list()).toMatchObject([
      { slug: 'other', state: 'running' },
      { slug: 'victim', state: 'gone' },
    ]);
    expect(await bottle(['exec', 'victim', '--', 'ls'])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('[BOTTLE_ENDED]') as string,
    });
    const first = await decantJson<{ collected: { slug: string }[]; running: string[] }>(['bottle', 'gc'], { home });
    expect(first).toMatchObject({ collected: [{ slug: 'victim' }], running: ['other'] });
    expect(await decantJson(['bottle', 'gc'], { home })).toMatchObject({ collected: [], running: ['other'] });
    expect((await bottle(['exec', 'other', '--', 'echo', 'alive'])).stdout).toBe('alive\n');
    await succeed(['bottle', 'stop', '--grace', '0', 'other'], { home });
    await nothingLeft();
  });

  test.skipIf(inject('dockerHost') === null || !have('docker'))(
    '[backend:docker] the same in a container, also after the supervisor was killed',
    async () => {
      const containers = async () =>
        (await output('docker', ['ps', '-a', '-q', '--filter', 'label=dev.decant.bottle=boxed'])).trim();
      const image = ['--image', 'agent', '--backend', 'docker', '--allow', '203.0.113.10'];
      expect((await bottle(['plan', ...image])).stdout).toMatch(/weaker[^]*Docker daemon/);
      const start = ['bottle', 'run', ...image, '-d', 'boxed', '--', 'sh', '-c', 'echo of-a-box > made; sleep 4715.5'];
      expect(await decant(start, { home, through })).toMatchObject({ status: 0, stdout: 'boxed\n' });
      expect(await containers()).toMatch(/^[0-9a-f]{12}$/);
      expect(await bottle(['exec', '-i', 'boxed', '--', 'sh', '-c', 'id -u; cat made; cat; exit 7'], 'typed')).toEqual({
        ...{ status: 7, stdout: '1000\nof-a-box\ntyped', stderr: '' },
      });
      await succeed(['bottle', 'cp', 'boxed:/job/made', join(folder.path, 'unboxed')], { home });
      expect(await readFile(join(folder.path, 'unboxed'), 'utf8')).toBe('of-a-box\n');
      const made = await decantJson<MadeImage>(['bottle', 'snapshot', 'boxed', 'agent:boxed'], { home });
      expect(made.chunks!.reused).toBeGreaterThan(10);
      const restored = await bottle(['run', '--image', 'agent:boxed', '--backend', 'docker', '--', 'cat', 'made']);
      expect(restored).toMatchObject({ status: 0, stdout: 'of-a-box\n' });

      const oneOff = ['run', '--backend', 'docker', 'agent', '--', '-c', 'cat /proc/net/dev | busybox wc -l; exit 3'];
      expect(await decant(oneOff, { home })).toEqual({ status: 3, stdout: '3\n', stderr: '' });

      process.kill((await list())[0]!.info!.pid, 'SIGKILL');
      expect(await lastingTraces('4715.5')).toEqual([]);
      expect(await decantJson(['bottle', 'gc'], { home })).toMatchObject({ collected: [{ slug: 'boxed' }] });
      expect(await containers()).toBe('');
      const nowhere = { home, env: { DOCKER_HOST: 'tcp://127.0.0.1:2375' } };
      expect(await failure(['bottle', 'run', ...image, '--', 'true'], nowhere)).toMatchObject({
        code: 'JAIL_UNAVAILABLE',
      });
      await nothingLeft();
    },
  );

  test('what is wrong is said before anything runs', async () => {
    expect(await failure(['bottle', 'run', 'nobody'], { home })).toMatchObject({ status: 4, code: 'NOT_FOUND' });
    expect(await failure(['bottle', 'run', '--image', 'none', '--', 'ls'], { home })).toMatchObject({ status: 4 });
    expect(await failure(['bottle', 'run', '--image', 'none', '-d', '--', 'ls'], { home })).toMatchObject({
      status: 4,
      code: 'NOT_FOUND',
    });
    expect(await failure(['bottle', 'plan', '--image', '--privileged'], { home })).toMatchObject({ status: 2 });
    await writeFile(join(home, 'bottles.d/odd.yaml'), 'image: agent\negress:\n  rotes: []\n');
    const odd = await failure(['bottle', 'plan', 'odd'], { home });
    expect(odd).toMatchObject({ status: 2, code: 'CONFIG_INVALID' });
    expect(odd.message).toContain('odd.yaml:3:3');
    await chmod(join(home, 'bottles.d/odd.yaml'), 0o666);
    expect(await failure(['bottle', 'plan', 'odd'], { home })).toMatchObject({
      status: 3,
      code: 'BOTTLE_MANIFEST_UNTRUSTED',
    });
    expect(await readFile(join(folder.path, 'notes'), 'utf8')).toBe('read me\n');
    await nothingLeft();
  });
});
