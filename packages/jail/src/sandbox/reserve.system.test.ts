import { copyFile, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { probeJail } from '../probe.ts';
import { openSandbox } from './open-sandbox.ts';
import { SandboxReserve } from './reserve.ts';

const programs = await Promise.all(['mkfs.erofs', 'busybox'].map(findProgram));
const available = (await probeJail()).ok && programs.every((path) => path !== undefined);
const PER_SANDBOX = 4;

async function sayHello(sandbox: Awaited<ReturnType<typeof openSandbox>>): Promise<string> {
  const { stdin, stdout, stderr, exit } = await sandbox.exec({ argv: ['/busybox', 'echo', 'hello'], env: {} });
  stdin.end();
  stderr.resume();
  let text = '';
  for await (const piece of stdout) text += String(piece);
  expect(await exit).toMatchObject({ exitCode: 0 });
  return text;
}

describe.skipIf(!available)('[backend:bubblewrap] programs in reserve', () => {
  let folder: string;
  let file: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'jail-reserve-'));
    const tree = join(folder, 'tree');
    await mkdir(tree);
    await copyFile(programs[1]!, join(tree, 'busybox'));
    file = join(folder, 'image.erofs');
    await run('mkfs.erofs', [file, tree], { timeoutMs: 120_000 });
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });
  const open = (reserve: SandboxReserve, name: string) =>
    openSandbox({
      ...{ disk: { file }, filesystem: 'erofs', reserve, stateDirectory: join(folder, name) },
      writeLayer: { kind: 'memory', bytes: 32 * 1024 * 1024 },
    });

  test('are used once each, replaced, and gone when the reserve is', async () => {
    await using reserve = new SandboxReserve({ size: 1 });
    expect(reserve.ready).toBe(PER_SANDBOX);
    {
      const started = performance.now();
      await using sandbox = await open(reserve, 'one');
      const left = reserve.ready;
      // Half a second after the first was taken they may have been replaced.
      if (performance.now() - started < 500) expect(left).toBe(PER_SANDBOX - 2);
      await sandbox.withFiles(async (files) => {
        expect(await files.write('/made/new', Buffer.from('x'), 0o644)).toEqual(['/made']);
      });
      expect(await sayHello(sandbox)).toBe('hello\n');
      // More than there are: others are started.
      expect(await sayHello(sandbox)).toBe('hello\n');
    }
    await expect.poll(() => reserve.ready).toBe(PER_SANDBOX);
    await reserve[Symbol.asyncDispose]();
    expect(reserve.ready).toBe(0);
    await using late = await open(reserve, 'late');
    expect(await sayHello(late)).toBe('hello\n');
  });

  test('one that was killed is not used', async () => {
    await using reserve = new SandboxReserve({ size: 1 });
    const children = await readFile(`/proc/self/task/${process.pid}/children`, 'latin1');
    for (const pid of children.trim().split(' ').map(Number)) {
      if (/^(?:perl|decant-)/.test(await readFile(`/proc/${pid}/comm`, 'latin1'))) process.kill(pid, 'SIGKILL');
    }
    await expect.poll(() => reserve.ready).toBe(0);
    await using sandbox = await open(reserve, 'killed');
    expect(await sayHello(sandbox)).toBe('hello\n');
  });

  test('has a size', () => {
    for (const size of [0, 65, 1.5]) expect(() => new SandboxReserve({ size })).toThrow(RangeError);
  });
});
