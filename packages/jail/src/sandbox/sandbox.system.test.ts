import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { isDeepStrictEqual } from 'node:util';

import { sleep } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { removeControlGroups } from '../cgroup.ts';
import { probeJail } from '../probe.ts';
import { openSandbox } from './open-sandbox.ts';
import type { Sandbox, SandboxOptions } from './types.ts';

const available =
  (await probeJail()).ok &&
  (await findProgram('busybox')) !== undefined &&
  (await findProgram('mkfs.erofs')) !== undefined;
const patient = { timeout: 20_000, interval: 50 };
const MIB = 1024 * 1024;
/** A number of seconds that nothing else on this machine sleeps. */
const SECONDS = `78.${process.pid}`;

/* What commands, copies and mounts do is in the contract of backends of @decant/bottle. */
describe.skipIf(!available)('[backend:erofs-utils] a sandbox', () => {
  let folder: string;
  let options: SandboxOptions;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'jail-sandbox-'));
    const tree = join(folder, 'tree');
    await mkdir(join(tree, 'bin'), { recursive: true });
    await copyFile((await findProgram('busybox'))!, join(tree, 'bin/busybox'));
    for (const name of ['sh', 'sleep', 'true', 'yes', 'cat']) await symlink('busybox', join(tree, 'bin', name));
    const file = join(folder, 'image');
    await run('mkfs.erofs', [file, tree], { timeoutMs: 120_000 });
    options = {
      disk: { file },
      filesystem: 'erofs',
      stateDirectory: join(folder, 'state'),
      writeLayer: { kind: 'disk', bytes: 32 * MIB },
      limits: { cpus: 1, memoryBytes: 128 * MIB, processes: 64 },
    };
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const env = { PATH: '/bin' };

  async function expectNothing(): Promise<void> {
    await expect.poll(() => processesNaming(folder), patient).toEqual([]);
    await expect.poll(() => processesNaming(SECONDS), patient).toEqual([]);
    await expect.poll(async () => (await run('losetup', ['-a'])).stdout.toString(), patient).not.toContain(folder);
    expect(await readFile('/proc/self/mounts', 'utf8')).not.toContain(folder);
  }

  test('SIGKILL of whoever opened it, at any moment, leaves nothing; the next one clears the folders away', async () => {
    const openers = [process.pid];
    for (const afterMs of [0, 3, 6, 10, 15, 20, 30, 45, 70, 120]) {
      const opener = launch(options);
      openers.push(opener.pid!);
      await once(opener.stdout!, 'data');
      await sleep(afterMs);
      opener.kill('SIGKILL');
      await once(opener, 'exit');
    }
    await expectNothing();
    const sandbox = await openSandbox(options);
    expect(await readdir(options.stateDirectory)).toHaveLength(1);
    await sandbox[Symbol.asyncDispose]();
    expect(await readdir(options.stateDirectory)).toEqual([]);
    // A group that the kernel had not let go of yet goes with the next one.
    await expect
      .poll(async () => {
        await removeControlGroups();
        return await groupsOf(openers);
      }, patient)
      .toEqual([]);
  });

  test('SIGKILL of what waits outside of it ends it', async () => {
    const sandbox = await openSandbox(options);
    const running = await sandbox.exec({ argv: ['sleep', SECONDS], env });
    // Among the children of this process only: others on the machine may have sandboxes too.
    const { stdout } = await run('ps', ['--ppid', `${process.pid}`, '-o', 'pid=,args=']);
    const waiting = /^ *(\d+) decant-sandbox/m.exec(stdout.toString())?.[1];
    process.kill(Number(waiting), 'SIGKILL');
    expect((await running.exit).exitCode).toBe(137);
    expect((await sandbox.ended).reason).not.toBe('');
    await expect(sandbox.exec({ argv: ['true'], env })).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    await sandbox[Symbol.asyncDispose]();
    await expectNothing();
  });

  test('an abort ends it, while it is set up and later', async () => {
    for (const afterMs of [0, 5, 20]) {
      const early = new AbortController();
      const opening = openSandbox({ ...options, signal: early.signal });
      opening.catch(() => undefined);
      await sleep(afterMs);
      early.abort(new Error('early'));
      await opening
        .then((opened) => opened.ended)
        .catch((error: unknown) => expect(error).toHaveProperty('message', 'early'));
    }
    const late = new AbortController();
    const sandbox = await openSandbox({ ...options, signal: late.signal });
    const running = await sandbox.exec({ argv: ['sleep', SECONDS], env });
    late.abort(new Error('late'));
    expect((await running.exit).exitCode).toBe(137);
    await sandbox.ended;
    await sandbox[Symbol.asyncDispose]();
    await expectNothing();
  });

  /** An export that waits for its reader; commands stand still meanwhile. */
  async function unreadExport(sandbox: Sandbox): Promise<Readable> {
    const writing = await sandbox.exec({ argv: ['sh', '-c', 'yes | busybox head -c 20000000 > /big'], env });
    writing.stdin.end();
    expect((await writing.exit).exitCode).toBe(0);
    const layer = sandbox.exportChanges();
    await once(layer, 'readable');
    let before: unknown = [];
    const standsStill = async () => {
      const { stdout } = await run('ps', ['--ppid', `${process.pid}`, '-o', 'pid=,args=']);
      const pids = [...stdout.toString().matchAll(/^ *(\d+) decant-changes/gm)].map(([, pid]) => pid);
      const moved = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/io`, 'utf8').catch(() => '')));
      const isSame = moved.length > 0 && isDeepStrictEqual(moved, before);
      before = moved;
      return isSame;
    };
    await expect.poll(standsStill, { ...patient, interval: 100 }).toBe(true);
    return layer;
  }

  test('an export that nobody reads to its end lets the commands go on', async () => {
    await using sandbox = await openSandbox(options);
    const layer = await unreadExport(sandbox);
    layer.destroy();
    const after = await sandbox.exec({ argv: ['true'], env, timeoutMs: 20_000 });
    expect(await after.exit).toEqual({ exitCode: 0, ran: true, timedOut: false });
  });

  test('an export that nobody reads does not keep it from its end', async () => {
    const sandbox = await openSandbox(options);
    const running = await sandbox.exec({ argv: ['sleep', SECONDS], env });
    const layer = await unreadExport(sandbox);
    const failure = once(layer, 'error');
    const unheard = sandbox.exportChanges();
    await sandbox[Symbol.asyncDispose]();
    await expect(unheard.toArray()).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    expect(await failure).toMatchObject([{ code: 'JAIL_FAILED' }]);
    expect((await running.exit).exitCode).toBe(137);
    expect(await processesNaming(SECONDS)).toEqual([]);
    await expect.poll(() => groupsOf([process.pid]), patient).toEqual([]);
  });

  test('a command can be signalled when it has just ended', async () => {
    await using sandbox = await openSandbox(options);
    for (let i = 0; i < 20; i++) {
      const running = await sandbox.exec({ argv: ['true'], env });
      await sleep(i);
      running.signal('SIGTERM');
      expect([0, 143]).toContain((await running.exit).exitCode);
    }
  });

  test('a time limit is told as one, however early it is over', async () => {
    await using sandbox = await openSandbox(options);
    for (const timeoutMs of [1, 1, 3, 5, 10, 30, 100]) {
      const { stdin, stdout, stderr, exit } = await sandbox.exec({ argv: ['sleep', SECONDS], env, timeoutMs });
      stdin.end();
      stdout.resume();
      stderr.resume();
      expect(await exit).toMatchObject({ exitCode: 137, timedOut: true });
    }
    await expect.poll(() => processesNaming(SECONDS), patient).toEqual([]);
  });

  test('work on files leaves no process that nobody waits for', async () => {
    await using sandbox = await openSandbox(options);
    for (let round = 0; round < 6; round++) {
      await sandbox.withFiles(async (files) => expect(await files.read('/none')).toBeUndefined());
    }
    const command = { argv: ['sh', '-c', 'cat /proc/[0-9]*/stat'], env };
    // One that has just ended is waited for in a moment, and the first process sleeps but for that.
    const look = async () => {
      const { stdin, stdout, stderr, exit } = await sandbox.exec(command);
      stdin.end();
      stderr.resume();
      const processes = await text(stdout);
      await exit;
      return { init: processes.includes('(init) S'), ended: processes.includes(') Z') };
    };
    await expect.poll(look, patient).toEqual({ init: true, ended: false });
  });

  test('who is in it or moves its bytes holds nothing of the host, and no right that it does not need', async () => {
    await using sandbox = await openSandbox(options);
    const running = await sandbox.exec({ argv: ['sleep', SECONDS], env });
    const holder = /^\/proc\/(\d+)\//.exec(sandbox.networkNamespace)![1];
    const first = async () => {
      const children = await readFile(`/proc/${holder}/task/${holder}/children`, 'latin1');
      return children.trim();
    };
    // Its own end of the pipe by which its own end is told.
    await expect.poll(async () => await readdir(`/proc/${await first()}/fd`), patient).toEqual(['0']);
    // KILL, to carry out orders; the other one has no command yet.
    const mover = async () => {
      const { stdout } = await run('ps', ['--ppid', `${process.pid}`, '-o', 'pid=,args=']);
      for (const [, pid = ''] of stdout.toString().matchAll(/^ *(\d+) decant-join/gm)) {
        const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
        if (/^CapEff:\t0+20$/m.test(status)) return Number(pid);
      }
      return undefined;
    };
    await expect.poll(mover, patient).toBeDefined();
    // When it is killed, its command does not go on without anybody who could end it.
    process.kill((await mover())!, 'SIGKILL');
    await expect(running.exit).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    await expect.poll(() => processesNaming(SECONDS), patient).toEqual([]);
  });

  test('what cannot be a sandbox', async () => {
    for (const wrong of [
      { writeLayer: { kind: 'disk', bytes: MIB } },
      { writeLayer: { kind: 'memory', bytes: 1 } },
      { hostname: '' },
      { hostname: 'a\nb' },
    ] as const) {
      await expect(openSandbox({ ...options, ...wrong })).rejects.toMatchObject({ code: 'USAGE' });
    }
    const network = { networkNamespace: '/etc/passwd' };
    await expect(openSandbox({ ...options, ...network })).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    expect(await readdir(options.stateDirectory)).toEqual([]);
  });
});

/** A process of its own that opens a sandbox with a command in it: something to kill. It writes a line when it begins. */
function launch(options: SandboxOptions): ChildProcess {
  const script = `const { openSandbox } = await import(process.argv[1]); console.log('begin');
    const sandbox = await openSandbox(JSON.parse(process.argv[2]));
    await (await sandbox.exec({ argv: ['sleep', '${SECONDS}'], env: { PATH: '/bin' } })).exit;`;
  const module = new URL('open-sandbox.ts', import.meta.url).href;
  const flags = ['--conditions=@decant/source', '--input-type=module', '-e', script, module, JSON.stringify(options)];
  return spawn(process.execPath, flags, { stdio: ['ignore', 'pipe', 'ignore'] });
}

/** Control groups that these processes made. */
async function groupsOf(makers: readonly number[]): Promise<string[]> {
  const names = await readdir('/sys/fs/cgroup/pids').catch(() => readdir('/sys/fs/cgroup'));
  return names.filter((name) => makers.includes(Number(/^decant-\d+-(\d+)-/.exec(name)?.[1])));
}

async function processesNaming(word: string): Promise<number[]> {
  const { stdout } = await run('ps', ['-eo', 'pid=,args='], { keepBytes: 8 * MIB });
  return stdout
    .toString()
    .split('\n')
    .filter((line) => line.includes(word) && !line.includes('vitest'))
    .map((line) => Number.parseInt(line, 10));
}
