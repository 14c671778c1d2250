import { spawn, type ChildProcess } from 'node:child_process';
import { chmod, chown, copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { findProgram, openScratchDirectory, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { probeJail } from '../probe.ts';
import { openSandbox } from './open-sandbox.ts';
import type { SandboxExecOptions, SandboxOptions } from './types.ts';

const available = (await probeJail()).ok && (await findProgram('busybox')) !== undefined;
const haveMkfs = (await findProgram('mkfs.erofs')) !== undefined && (await findProgram('mkfs.ext4')) !== undefined;
const haveQemuNbd = (await findProgram('qemu-nbd')) !== undefined;
const patient = { timeout: 30_000 };
const APPLETS = 'sh ls id cat echo touch sleep ip mount mknod unshare dd hostname stat chown kill su ps wc'.split(' ');

describe.skipIf(!available || !haveMkfs)('[backend:bubblewrap] a command in an image', () => {
  let folder: string;
  let erofs: string;
  let ext4: string;
  let state: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'jail-run-'));
    // Like a data directory under a private home: nobody but root may pass.
    await chmod(folder, 0o700);
    state = join(folder, 'state');
    erofs = join(folder, 'image.erofs');
    ext4 = join(folder, 'image.ext4');
    const tree = join(folder, 'tree');
    for (const name of ['bin', 'etc', 'tmp', 'home/app']) await mkdir(join(tree, name), { recursive: true });
    await copyFile((await findProgram('busybox'))!, join(tree, 'bin/busybox'));
    for (const name of APPLETS) await symlink('busybox', join(tree, 'bin', name));
    await writeFile(join(tree, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n');
    await writeFile(join(tree, 'etc/group'), 'root:x:0:\napp:x:1001:\nextra:x:2000:app\n');
    await writeFile(join(tree, 'etc/private'), 'for image root\n', { mode: 0o600 });
    await symlink('/etc/shadow', join(tree, 'etc/link'));
    await chmod(join(tree, 'tmp'), 0o1777);
    await chown(join(tree, 'home/app'), 1000, 1001);
    await run('mkfs.erofs', [erofs, tree], { timeoutMs: 120_000 });
    await run('mkfs.ext4', ['-q', '-d', tree, ext4, '16M'], { timeoutMs: 120_000 });
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  type Extra = Partial<Pick<SandboxOptions, 'disk' | 'filesystem' | 'hostname' | 'writeLayer' | 'signal'>> &
    Partial<Pick<SandboxExecOptions, 'env' | 'user' | 'workingDir'>> & { readonly input?: string };

  /** One command in a sandbox of its own, which ends with it. */
  async function go(argv: string[], { input, env, user, workingDir, ...extra }: Extra = {}) {
    const sandbox = await openSandbox({
      disk: { file: erofs },
      filesystem: 'erofs',
      writeLayer: { kind: 'memory', bytes: 8 * 1024 * 1024 },
      stateDirectory: state,
      ...extra,
    });
    try {
      const command = {
        argv,
        env: env ?? { PATH: '/bin', GREETING: 'good day' },
        user,
        workingDir,
        makeWorkingDir: true,
      };
      const running = await sandbox.exec(command);
      const text = Promise.all([running.stdout, running.stderr].map(async (from) => (await from.toArray()).join('')));
      running.stdin.end(input);
      const { exitCode, ran } = await running.exit;
      await sandbox[Symbol.asyncDispose]();
      extra.signal?.throwIfAborted();
      const [out, err] = await text;
      return { exitCode, ran, out: out!, err: err! };
    } finally {
      await sandbox[Symbol.asyncDispose]();
    }
  }
  const sh = (script: string, extra: Parameters<typeof go>[1] = {}) => go(['sh', '-c', script], extra);

  test('standard streams, environment, host name and exit codes', async () => {
    const echo = await sh('cat; echo "$GREETING"; hostname; echo oops >&2; exit 7', {
      input: 'in and ',
      hostname: 'box',
    });
    expect(echo).toMatchObject({ exitCode: 7, out: 'in and good day\nbox\n', err: 'oops\n' });
    expect((await sh('kill -9 $$')).exitCode).toBe(137);
    expect(await go(['no-such-command'])).toMatchObject({ exitCode: 127, ran: false });
    expect(await go(['/etc/passwd'])).toMatchObject({ exitCode: 126, ran: false });
    expect((await go(['/bin'])).exitCode).toBe(126);
  });

  test('root inside is nobody outside', async () => {
    const abort = new AbortController();
    const running = sh(`id -u; cat /etc/private; sleep ${own(63)}`, { signal: abort.signal });
    running.catch(() => undefined);
    await expect.poll(async () => (await sleepers(own(63))).length).toBeGreaterThan(0);
    for (const pid of await sleepers(own(63))) {
      const status = await readFile(`/proc/${pid}/status`, 'utf8');
      const uids = /^Uid:\s+(.*)$/m.exec(status)![1]!.split('\t').map(Number);
      const groups = /^Groups:[ \t]*(.*)$/m.exec(status)![1]!.trim();
      expect(uids.every((uid) => uid >= 0x30000000)).toBe(true);
      expect(groups).toBe('');
    }
    abort.abort(new Error('enough'));
    await expect(running).rejects.toThrow('enough');
    expect(await sleepers(own(63))).toEqual([]);
    expect((await sh('id -u; cat /etc/private; ls -ln /etc/private')).out).toMatch(
      /^0\nfor image root\n-rw-------\s+1 0\s+0/,
    );
  });

  test('the user of the image, with its groups, directory and rights', async () => {
    const script = 'id; pwd; echo $HOME; touch /home/app/x && echo own; cat /etc/private || echo refused';
    const { out } = await sh(script, { user: 'app', workingDir: '/made/here' });
    expect(out.split('\n')).toEqual([
      'uid=1000(app) gid=1001(app) groups=2000(extra)',
      '/made/here',
      '/home/app',
      'own',
      'refused',
      '',
    ]);
    await expect(sh('true', { user: 'nobody' })).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    expect(await readdir(state)).toEqual([]);
  });

  test('no network, no host process, no host file, no way to mount', async () => {
    const { out } = await sh(
      'ip -o link | wc -l; ls -d /proc/[0-9]* | wc -l; cat /etc/link; ls /work /root /sys; ls -l /proc/self/fd',
    );
    const lines = out.split('\n');
    expect(lines[0]).toBe('1');
    expect(Number(lines[1])).toBeLessThan(8);
    expect(out).not.toMatch(/\/[a-z]+\/.*state/);
    const attempts = [
      'mount -t tmpfs x /tmp',
      'mknod /tmp/d b 8 0',
      'unshare -U true',
      'unshare -m true',
      'chown 70000 /tmp',
      'echo 1 > /proc/sys/kernel/core_pattern',
      'echo b > /proc/sysrq-trigger',
      'touch /dev/x',
      'cat /etc/shadow',
    ];
    for (const attempt of attempts) expect((await sh(attempt)).exitCode, attempt).not.toBe(0);
  });

  test('what is written is bounded and gone afterwards', async () => {
    const first = await sh('echo changed > /etc/passwd && echo new > /new && cat /etc/passwd /new');
    expect(first.out).toBe('changed\nnew\n');
    expect((await sh('cat /new')).exitCode).not.toBe(0);
    const full = await sh('dd if=/dev/zero of=/big bs=1048576 count=64');
    expect(full.exitCode).not.toBe(0);
    expect(full.err).toContain('No space left');
  });

  test('ext4, by a loop device that is gone afterwards', async () => {
    const { out } = await sh('id -u; cat /etc/private', { disk: { file: ext4 }, filesystem: 'ext4' });
    expect(out).toBe('0\nfor image root\n');
    await expect.poll(async () => (await run('losetup', ['-a'])).stdout.toString()).not.toContain(folder);
  });

  test('a damaged image is an error and leaves nothing', async () => {
    const bad = join(folder, 'bad');
    await writeFile(bad, Buffer.alloc(65_536, 7));
    await expect(sh('true', { disk: { file: bad } })).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    await expect(sh('true', { disk: { nbdSocket: join(folder, 'none') } })).rejects.toMatchObject({
      code: 'JAIL_FAILED',
    });
    expect(await readdir(state)).toEqual([]);
    await expect.poll(async () => (await run('losetup', ['-a'])).stdout.toString()).not.toContain(folder);
  });

  test.skipIf(!haveQemuNbd)('[backend:qemu-utils] an image that comes over NBD', async () => {
    const socket = join(folder, 'nbd');
    const server = spawn('qemu-nbd', ['-r', '-t', '-f', 'raw', '-x', 'a name/é', '-k', socket, erofs], {
      stdio: 'ignore',
    });
    try {
      await expect.poll(() => readdir(folder)).toContain('nbd');
      const { out } = await sh('id -u; cat /etc/private', { disk: { nbdSocket: socket, exportName: 'a name/é' } });
      expect(out).toBe('0\nfor image root\n');
    } finally {
      server.kill('SIGKILL');
    }
  });

  test('after SIGKILL of the launcher no process, mount or loop device stays, and the next start tidies up', async () => {
    for (const [filesystem, file, word] of [
      ['erofs', erofs, own(64)],
      ['ext4', ext4, own(65)],
    ] as const) {
      const launcher = launch({ ...launchable(file, state), filesystem }, ['sleep', word]);
      await expect.poll(async () => (await sleepers(word)).length, patient).toBeGreaterThan(0);
      const [left] = await readdir(state);
      await tidyUp(state);
      expect(await readdir(state)).toEqual([left]);
      launcher.kill('SIGKILL');
      await expect.poll(() => sleepers(word), patient).toEqual([]);
      await expect.poll(() => processesNaming(left!), patient).toEqual([]);
      await expect.poll(async () => (await run('losetup', ['-a'])).stdout.toString(), patient).not.toContain(folder);
      expect(await readFile('/proc/self/mounts', 'utf8')).not.toContain(folder);
      await tidyUp(state);
      expect(await readdir(state)).toEqual([]);
    }
  });

  test('standard input of the launcher itself, and of a terminal not as well', async () => {
    const script = 'read -r first; echo "got $first"';
    const launcher = launch(launchable(erofs, state), ['sh', '-c', script]);
    launcher.stdin!.on('error', () => undefined);
    launcher.stdin!.write('one\n');
    expect(await text(launcher.stdout!)).toBe('got one\n');
    const sandbox = await openSandbox(launchable(erofs, state));
    const both = { argv: ['true'], env: {}, inheritStdin: true, terminal: { columns: 80, rows: 24 } };
    await expect(sandbox.exec(both)).rejects.toMatchObject({ code: 'USAGE' });
    await sandbox[Symbol.asyncDispose]();
  });

  test('nonsense is refused before anything starts', async () => {
    await expect(go([])).rejects.toMatchObject({ code: 'USAGE' });
    await expect(go(['a\0b'])).rejects.toMatchObject({ code: 'USAGE' });
    await expect(go(['true'], { env: { 'A=B': '' } })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(go(['true'], { workingDir: 'relative' })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(go(['true'], { writeLayer: { kind: 'memory', bytes: 0 } })).rejects.toMatchObject({ code: 'USAGE' });
  });
});

/** What every start does: opening a folder of one's own removes those of ended processes. */
async function tidyUp(state: string): Promise<void> {
  await using own = await openScratchDirectory(state);
  expect(await readdir(own.path)).toEqual([]);
}

function launchable(file: string, stateDirectory: string): SandboxOptions {
  return {
    disk: { file },
    filesystem: 'erofs',
    writeLayer: { kind: 'memory', bytes: 1_000_000 },
    stateDirectory,
  };
}

/** A process of its own that runs a command in an image with its own standard input: something to kill. */
function launch(options: SandboxOptions, argv: readonly string[]): ChildProcess {
  const script = `
    const { openSandbox } = await import(process.argv[1]);
    const [options, argv] = JSON.parse(process.argv[2]);
    const sandbox = await openSandbox(options);
    const command = await sandbox.exec({ argv, env: { PATH: '/bin' }, inheritStdin: true });
    command.stdout.pipe(process.stdout);
    await command.exit;
    await sandbox[Symbol.asyncDispose]();
  `;
  const module = new URL('open-sandbox.ts', import.meta.url).href;
  const facts = JSON.stringify([options, argv]);
  const flags = ['--conditions=@decant/source', '--input-type=module', '-e', script, module, facts];
  return spawn(process.execPath, flags, { stdio: ['pipe', 'pipe', 'inherit'] });
}

/** A number of seconds that nothing else on this machine sleeps. */
function own(seconds: number): string {
  return `${seconds}.${process.pid}`;
}

/** Host processes that are `sleep SECONDS`. */
async function sleepers(seconds: string): Promise<number[]> {
  const all = await processes();
  return all.filter(({ argv }) => argv[0] === 'sleep' && argv[1] === seconds).map(({ pid }) => pid);
}

async function processesNaming(word: string): Promise<number[]> {
  return (await processes()).filter(({ argv }) => argv.some((arg) => arg.includes(word))).map(({ pid }) => pid);
}

async function processes(): Promise<{ pid: number; argv: string[] }[]> {
  const found: { pid: number; argv: string[] }[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (line !== '') found.push({ pid: Number(pid), argv: line.split('\0') });
  }
  return found;
}
