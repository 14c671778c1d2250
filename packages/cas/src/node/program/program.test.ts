import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { PAGE_BYTES } from '@decant/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { flipBit } from '../../test-data.ts';
import { extent, writeSparse } from '../test-image.ts';

const MAIN = new URL('main.ts', import.meta.url).pathname;
const SIZE = 40 * PAGE_BYTES * 100 + 5;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-cas-'));
});
afterAll(() => rm(folder, { recursive: true }));

function program(...args: string[]): Promise<{ status: number; stdout: Buffer; stderr: string }> {
  return new Promise((resolve) => {
    const options = { cwd: folder, encoding: 'buffer', maxBuffer: 64 * 2 ** 20, timeout: 240_000 } as const;
    const command = ['--conditions=@decant/source', MAIN, ...args];
    execFile(process.execPath, command, options, (error, stdout, stderr) => {
      const status = error === null ? 0 : Number(error.code ?? -1);
      resolve({ status, stdout, stderr: stderr.toString('utf8') });
    });
  });
}

it('makes, compares, verifies and gives back images', async () => {
  const image = [extent(0, 200, 1, true), extent(700, 150, 2), extent(1000, 40, 3)];
  await writeSparse(join(folder, 'a.img'), image, SIZE);
  await writeSparse(join(folder, 'b.img'), [...image.slice(0, 2), extent(1000, 40, 4)], SIZE);

  const a = await program('make', 'a.img', '--store', 'store', '--workers', '2', '-o', 'a.manifest', '--json');
  expect(a).toMatchObject({ status: 0, stderr: '' });
  expect(JSON.parse(a.stdout.toString('utf8'))).toMatchObject({
    manifest: 'a.manifest',
    contentBytes: 390 * PAGE_BYTES,
    newBytes: 390 * PAGE_BYTES,
  });
  const b = await program('make', 'b.img', '--store=store', '--level', 'raw', '--no-fsync', '-o', 'b.manifest');
  expect(b.stdout.toString('utf8')).toMatch(/^cas-v1:[0-9a-f]{64}\n.*1\.5 MiB.*\n.*b\.manifest\n$/s);

  const compared = await program('diff', 'a.manifest', 'b.manifest', '--json');
  const { sharedBytes, newBytes } = JSON.parse(compared.stdout.toString('utf8')) as Record<string, number>;
  expect([sharedBytes, newBytes]).toEqual([350 * PAGE_BYTES, 40 * PAGE_BYTES]);

  expect(await program('verify', 'b.manifest', '--store', 'store')).toMatchObject({ status: 0, stderr: '' });
  const whole = await program('cat', 'b.manifest', '--store', 'store');
  const original = await readFile(join(folder, 'b.img'));
  expect(whole.stdout.subarray(0, SIZE).equals(original)).toBe(true);
  expect(whole.stdout.length).toBe(Math.ceil(SIZE / PAGE_BYTES) * PAGE_BYTES);
  const part = await program('cat', 'b.manifest', '--store', 'store', '--offset', '2867K', '--length', '9000');
  expect(part.stdout.equals(original.subarray(2867 * 1024, 2867 * 1024 + 9000))).toBe(true);

  await mkdir(join(folder, 'elsewhere'));
  const lost = await program('verify', 'a.manifest', '--store', 'elsewhere');
  expect(lost).toMatchObject({ status: 6, stderr: expect.stringContaining('[CAS_CHUNK_MISMATCH]') });
  expect(lost.stderr.match(/ is missing\n/g)).toHaveLength(10);
  const beyond = await program('cat', 'b.manifest', '--store', 'store', '--offset', '1G', '--length', '1');
  expect(beyond).toMatchObject({ status: 2, stdout: Buffer.alloc(0), stderr: expect.stringContaining('[USAGE]') });
});

it('counts what is damaged, and leaves no half manifest where one cannot be written', async () => {
  await cp(join(folder, 'store'), join(folder, 'damaged'), { recursive: true });
  const [name] = await readdir(join(folder, 'damaged', 'packs'));
  const pack = join(folder, 'damaged', 'packs', name!);
  await writeFile(pack, flipBit(await readFile(pack), 8 * 100));
  const damaged = await program('verify', 'a.manifest', '--store', 'damaged');
  expect(damaged).toMatchObject({ status: 6, stdout: Buffer.alloc(0) });
  expect(damaged.stderr).toMatch(/^Chunk [0-9a-f]{64} [^\n]*\nerror: 1 of \d+ chunks [^\n]*\[CAS_CHUNK_MISMATCH\]\n/);
  const taken = await program('make', 'b.img', '--store', 'store', '-o', 'elsewhere');
  expect(taken).toMatchObject({ status: 2, stderr: expect.stringContaining('[USAGE]') });
  expect((await readdir(folder)).filter((entry) => entry.endsWith('.partial'))).toEqual([]);
});

it.each([
  [['make', 'nothing.img', '--store', 's'], 2, 'CAS_FILE_UNREADABLE'],
  [['make', 'a.img'], 2, 'USAGE'],
  [['make', 'a.img', '--store', 'a.img'], 2, 'CAS_FILE_UNREADABLE'],
  [['cat', 'a.manifest', '--store', 'nowhere'], 2, 'CAS_FILE_UNREADABLE'],
  [['verify', '/dev/zero', '--store', 'store'], 6, 'CAS_MANIFEST_INVALID'],
  [['make', 'a.img', '--store', 's', '--level', '20'], 2, 'USAGE'],
  [['diff', 'a.manifest'], 2, 'USAGE'],
  [['verify', 'a.img', '--store', 's'], 6, 'CAS_MANIFEST_INVALID'],
  [['toString'], 2, 'USAGE'],
  // Where nobody may make a directory, root included.
  [['make', 'a.img', '--store', '/sys/decant'], 2, 'CAS_FILE_UNREADABLE'],
])('%j ends with %i and %s', async (args, status, code) => {
  const result = await program(...args);
  expect(result).toMatchObject({ status, stderr: expect.stringContaining(`[${code}]`) });
  expect(result.stderr).not.toMatch(/ at .*:\d+/);
});

it.each(['SIGINT', 'SIGTERM'] as const)('ends with 130 on %s, and leaves nothing of its work', async (signal) => {
  await writeSparse(join(folder, 'long.img'), [extent(0, 30_000, 9)], 30_000 * PAGE_BYTES);
  const args = ['--conditions=@decant/source', MAIN, 'make', 'long.img', '--store', 'broken', '--level', '19'];
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'close');
  const listed = async (path: string) => readdir(join(folder, 'broken', path)).catch(() => []);
  while ((await listed('tmp')).length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill(signal);
  expect((await ended)[0]).toBe(130);
  expect([await listed('tmp'), await listed('packs'), await listed('manifests')]).toEqual([[], [], []]);
});

describe('standard output', () => {
  const started = (args: readonly string[], stdout: 'pipe' | number) =>
    spawn(process.execPath, ['--conditions=@decant/source', MAIN, ...args], {
      cwd: folder,
      stdio: ['ignore', stdout, 'pipe'],
      timeout: 100_000,
      killSignal: 'SIGKILL',
    });

  it('that nobody reads any more is enough, and one on a full disk is an error', async () => {
    const left = started(['make', 'b.img', '--store', 'store'], 'pipe');
    left.stdout!.destroy();
    const [said, [status]] = await Promise.all([text(left.stderr!), once(left, 'close')]);
    expect({ said, status }).toEqual({ said: '', status: 0 });

    await using full = await open('/dev/full', 'w');
    for (const args of [
      ['make', 'b.img', '--store', 'store'],
      ['cat', 'b.manifest', '--store', 'store'],
    ]) {
      const child = started(args, full.fd);
      const [message, [code]] = await Promise.all([text(child.stderr!), once(child, 'close')]);
      expect([message, code], args[0]).toEqual([expect.stringMatching(/^error: .*\[DISK_FULL\]\n[^\n]*\n$/), 7]);
    }
  });

  it('that is read no further does not keep an interrupted command', async () => {
    const child = started(['cat', 'b.manifest', '--store', 'store'], 'pipe');
    await once(child.stdout!, 'readable');
    const ended = once(child, 'exit');
    child.kill('SIGINT');
    expect(await ended).toEqual([130, null]);
    expect(await text(child.stderr!)).toBe('');
  });
});

it('a file that cannot be opened for ever does not keep an interrupted command', async () => {
  execFileSync('mkfifo', ['first', 'second'], { cwd: folder });
  const args = ['--conditions=@decant/source', MAIN, 'diff', 'first', 'second'];
  const options = { cwd: folder, stdio: 'ignore', timeout: 100_000, killSignal: 'SIGKILL' } as const;
  const child = spawn(process.execPath, args, options);
  const ended = once(child, 'exit');
  // What is written is taken once the command reads: then it is at work, and all that is left for it is the other one.
  expect(await once(spawn('sh', ['-c', 'cat b.manifest > first'], options), 'exit')).toEqual([0, null]);
  child.kill('SIGINT');
  // By the signal, as a shell's 130 says, since a process with such a call cannot end otherwise.
  expect(await ended).toEqual([null, 'SIGINT']);
});
