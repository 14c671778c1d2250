import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { decant, decantJson, failure, startDecant, succeed, type MadeImage } from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { lastingTraces, pidOf } from './support/leftovers.ts';
import { have, isRoot, tool } from './support/programs.ts';

const available = isRoot && have('bwrap', 'busybox', 'nbdfuse', 'fusermount3', 'mkfs.ext4');

describe.skipIf(!available)('[backend:bubblewrap] decant run', () => {
  let folder: TemporaryDirectory;
  let home: string;
  let plain: string;

  beforeAll(async () => {
    folder = await temporaryDirectory('decant-e2e-');
    home = join(folder.path, 'home');
    plain = await smallImage(folder.path, 'plain');
    const app = await smallImage(folder.path, 'app', {
      config: {
        Env: ['PATH=/bin', 'GREETING=good day'],
        User: 'app:extra',
        WorkingDir: '/srv/job',
        Entrypoint: ['/bin/sh', '-c'],
        Cmd: ['busybox id -u; busybox id -g; pwd; echo "$GREETING"; echo "$HOME"'],
      },
      entries: [
        { path: 'etc/passwd', data: 'root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n' },
        { path: 'etc/group', data: 'root:x:0:\napp:x:1001:\nextra:x:2000:\n' },
        { path: 'srv/job/', type: 'directory', uid: 1000, gid: 2000 },
      ],
    });
    await succeed(['image', 'import', plain, '--streaming'], { home });
    await succeed(['image', 'import', app, '--streaming'], { home });
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  const expectNothing = async () => {
    expect(await lastingTraces(home)).toEqual([]);
    expect(await readdir(join(home, 'scratch')).catch(() => [])).toEqual([]);
    expect((await readdir(join(home, 'bottles'))).filter((name) => name !== 'audit.d')).toEqual([]);
  };
  const run = (args: string[], input?: string) =>
    decant(['run', ...args], { home, ...(input === undefined ? {} : { input }) });
  const sh = (script: string, input?: string) => run(['plain', '--', 'sh', '-c', script], input);

  test("uses the image's user, directory, environment, entrypoint and command", async () => {
    const own = await run(['app']);
    expect(own).toEqual({ status: 0, stdout: '1000\n2000\n/srv/job\ngood day\n/home/app\n', stderr: '' });
    expect(await run(['app', '--', 'touch made && ls; exit 9'])).toMatchObject({ status: 9, stdout: 'made\n' });
  });

  test("gives the command's streams and exit code through", async () => {
    const echoed = await sh('cat; echo oops >&2; exit 7', 'in and out\n');
    expect(echoed).toEqual({ status: 7, stdout: 'in and out\n', stderr: 'oops\n' });
    expect((await sh('kill -9 $$')).status).toBe(137);
    const missing = await run(['plain', '--', 'no-such-program']);
    expect(missing).toMatchObject({ status: 127, stderr: expect.stringContaining('has no command') as string });
    const data = await run(['plain', '--', '/etc/passwd']);
    expect(data).toMatchObject({
      status: 126,
      stderr: expect.stringContaining('no program that its user may execute') as string,
    });
    expect(await sh('exit 127')).toMatchObject({ status: 127, stderr: '' });
    const big = await sh('i=0; while [ $i -lt 20000 ]; do echo "line $i of a long output"; i=$((i+1)); done');
    expect(big.stdout.split('\n')).toHaveLength(20_001);
    const none = await failure(['run', 'plain'], { home });
    expect(none).toMatchObject({ status: 2, code: 'USAGE' });
    expect(none.hint).toContain('--');
  });

  test('writes what it fetched to the stats file, whatever the exit code', async () => {
    const file = join(folder.path, 'stats.json');
    expect((await run(['--stats-file', file, 'plain', '--', 'sh', '-c', 'exit 3'])).status).toBe(3);
    const stats = JSON.parse(await readFile(file, 'utf8')) as Record<string, number>;
    expect(Object.keys(stats)).toEqual(['chunksFetched', 'bytesFetched', 'bytesVirtual', 'rounds']);
    expect(stats['chunksFetched']).toBeGreaterThan(0);
    expect(stats['bytesFetched']).toBeLessThan(stats['bytesVirtual']!);
    expect(stats['rounds']).toBeLessThanOrEqual(stats['chunksFetched']!);
  });

  test('shuts the command in: no network, own processes, no host user, writes are thrown away', async () => {
    const inside = await sh(
      'ls /sys/class/net 2>/dev/null; busybox ip -o link 2>/dev/null | wc -l; busybox ps | wc -l; busybox id -u; ' +
        'echo x > /etc/written && cat /etc/written; mount -t tmpfs none /tmp 2>/dev/null && echo mounted; ls /proc/1/root/srv/job 2>/dev/null',
    );
    const lines = inside.stdout.split('\n');
    expect(lines).not.toContain('eth0');
    expect(lines).not.toContain('mounted');
    expect(lines).toContain('x');
    expect((await sh('cat /etc/written')).stdout).toBe('');
    expect((await sh('busybox wget -T 2 -q -O- http://1.1.1.1/; busybox nc -w 2 127.0.0.1 22; echo $?')).stdout).toBe(
      '1\n',
    );
    const name = `sleep 4711.${process.pid}`;
    await using running = startDecant(['run', 'plain', '--', ...name.split(' ')], { home });
    const status = await readFile(`/proc/${await pidOf(name)}/status`, 'utf8');
    const ids = /^Uid:\s+(.*)$/m.exec(status)![1]!.split('\t').map(Number);
    for (const id of ids) expect(id).toBeGreaterThan(1_000_000);
    running.signal('SIGTERM');
    expect((await running.ended).status).toBe(130);
  });

  test('Ctrl-C ends it with 130 and leaves nothing', async () => {
    const name = `4712.${process.pid}`;
    await using running = startDecant(['run', 'plain', '--', 'sh', '-c', `sleep ${name} & echo ready; wait`], { home });
    await running.seen(/ready/);
    running.signal('SIGINT', 'group');
    const { status, stderr } = await running.ended;
    expect({ status, stderr }).toEqual({ status: 130, stderr: 'interrupted\n' });
    expect(await lastingTraces(name)).toEqual([]);
    await expectNothing();
  });

  test('SIGKILL at any moment: decant bottle gc leaves no process, mount, loop device or file', async () => {
    const name = `4713.${process.pid}`;
    for (const delayMs of [150, 400, 600, 700, 800, 900, 1000, 1100, 1250, 1500, 2500]) {
      await using running = startDecant(['run', 'plain', '--', 'sleep', name], { home });
      await sleep(delayMs);
      running.signal('SIGKILL');
      expect((await running.ended).status).toBe(137);
    }
    await succeed(['bottle', 'gc'], { home });
    expect(await lastingTraces(name)).toEqual([]);
    await expectNothing();
  });

  test('is a bottle while it runs: it is listed, entered, read, bounded and stopped; then nothing is kept of it', async () => {
    const script =
      'echo begun; busybox dd if=/dev/zero of=/big bs=1048576 count=64 2>/dev/null || echo full; exec sleep 600';
    await using running = startDecant(
      ['run', '--name', 'one', '--disk', '32M', '--memory', '128M', '-e', 'WHO=me', '-w', '/etc', 'plain', '--'].concat(
        ['sh', '-c', script],
      ),
      { home },
    );
    await running.seen(/full/);
    const listed = async () => (await decantJson<{ bottles: object[] }>(['bottle', 'ls', '--all'], { home })).bottles;
    expect(await listed()).toMatchObject([
      {
        slug: 'one',
        state: 'running',
        image: 'plain',
        info: { routes: [], command: ['sh', '-c', script], pid: running.pid },
      },
    ]);
    const inside = await decant(
      ['bottle', 'exec', 'one', '--', 'sh', '-c', 'pwd; busybox ps | busybox grep -c "[s]leep 600"'],
      { home },
    );
    expect(inside).toMatchObject({ status: 0, stdout: '/\n1\n' });
    expect((await succeed(['bottle', 'logs', 'one'], { home })).stdout).toBe('begun\nfull\n');
    // The memory is bounded, and only who takes too much is ended.
    const greedy = [
      'bottle',
      'exec',
      'one',
      '--',
      'busybox',
      'dd',
      'if=/dev/zero',
      'of=/dev/null',
      'bs=300000000',
      'count=1',
    ];
    expect((await decant(greedy, { home })).status).toBe(137);
    const audit = await decant(['bottle', 'logs', '--audit', 'one'], { home });
    expect(audit).toMatchObject({ status: 4, stdout: '', stderr: expect.stringContaining('[NOT_FOUND]') as string });
    await succeed(['bottle', 'stop', 'one'], { home });
    expect(await running.ended).toMatchObject({ status: 143, stdout: 'begun\nfull\n', stderr: '' });
    expect(await listed()).toEqual([]);
    expect(await readdir(join(home, 'bottle-records')).catch(() => [])).toEqual([]);
    await expectNothing();
    const variable = await run([
      '-e',
      'WHO=me',
      '-w',
      '/etc',
      'plain',
      '--',
      'sh',
      '-c',
      'echo "$WHO $PWD $HTTPS_PROXY"',
    ]);
    expect(variable).toEqual({ status: 0, stdout: 'me /etc \n', stderr: '' });
  });

  test('reads no more of standard input than its command, and ends with the reader of its output', async () => {
    const loop = ['sh', '-c', 'while read -r line; do "$@" "$line"; done', 'sh'];
    const each = await decant(['run', 'plain', '--', 'echo'], { home, through: loop, input: 'one\ntwo\n' });
    expect(each).toEqual({ status: 0, stdout: 'one\ntwo\n', stderr: '' });
    const head = ['bash', '-c', '"$@" | head -n 1; exit "${PIPESTATUS[0]}"', 'bash'];
    const yes = await decant(['run', 'plain', '--', 'busybox', 'yes'], { home, through: head });
    expect(yes).toEqual({ status: 141, stdout: 'y\n', stderr: '' });
    await expectNothing();
  });

  test('without control groups to write to it runs unbounded, and not at all when a bound was asked for', async () => {
    const through = ['unshare', '-m', 'sh', '-c', 'umount -R -l /sys/fs/cgroup && exec "$@"', 'sh'];
    const free = await decant(['run', 'plain', '--', 'echo', 'free'], { home, through });
    expect(free).toEqual({ status: 0, stdout: 'free\n', stderr: '' });
    const bounded = await failure(['run', '--memory', '64M', 'plain', '--', 'echo', 'x'], { home, through });
    expect(bounded).toMatchObject({ status: 7, code: 'JAIL_UNAVAILABLE' });
    await expectNothing();
  });

  test('[backend:e2fsprogs] runs an ext4 image', async () => {
    const made = await decantJson<MadeImage>(['image', 'import', plain, '-n', 'whole', '--disk-mb', '64'], { home });
    expect(made).toMatchObject({ chunks: null, image: { format: 'ext4', name: 'whole', tag: 'latest' } });
    expect(made.image.id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await run(['whole', '--', 'sh', '-c', 'echo hello > /tmp/x; cat /tmp/x; exit 4'])).toMatchObject({
      status: 4,
      stdout: 'hello\n',
    });
    await succeed(['image', 'verify', 'whole'], { home });
    await using running = startDecant(['run', 'whole', '--', 'sh', '-c', 'echo kept > /made; echo up; sleep 600'], {
      home,
    });
    await running.seen(/up/);
    await succeed(['bottle', 'snapshot', 'whole', 'whole:worked'], { home });
    running.signal('SIGTERM');
    expect((await running.ended).status).toBe(130);
    expect(await run(['whole:worked', '--', 'cat', '/made'])).toMatchObject({ status: 0, stdout: 'kept\n' });
    const raw = join(folder.path, 'whole.raw');
    await succeed(['image', 'export', 'whole', '--sparse', raw], { home });
    await tool('e2fsck', ['-f', '-n', raw]);
  });

  test('[backend:e2fsprogs] mounts a filesystem of someone else only when told to trust it', async () => {
    const tree = join(folder.path, 'tree');
    await mkdir(join(tree, 'bin'), { recursive: true });
    await tool('sh', [
      '-c',
      'cp "$(command -v busybox)" "$1/bin/busybox" && ln -s busybox "$1/bin/echo" && mkdir "$1/tmp"',
      'sh',
      tree,
    ]);
    const raw = join(folder.path, 'foreign.raw');
    await tool('mkfs.ext4', ['-q', '-d', tree, raw, '24M']);
    for (const format of [['--streaming'], []]) {
      await succeed(['image', 'import', `raw:${raw}`, '-n', 'foreign', ...format], { home });
      const refused = await failure(['run', 'foreign', '--', 'echo', 'hi'], { home });
      expect(refused).toMatchObject({ status: 2, code: 'USAGE' });
      expect(refused.hint).toContain('--trust-filesystem');
      const trusted = await run(['--trust-filesystem', 'foreign', '--', '/bin/echo', 'hi']);
      expect(trusted).toMatchObject({ status: 0, stdout: 'hi\n' });
    }
    const back = join(folder.path, 'back.raw');
    await succeed(['image', 'export', 'foreign', '--raw', back], { home });
    await tool('cmp', [raw, back]);
  });
});
