import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { run } from '@decant/core/node';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { commonReapers } from './kinds.ts';
import type { LedgerHeader } from './ledger.ts';

const isRoot = process.getuid?.() === 0;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-reap-'));
  for (const name of ['outside', 'bottles/agent/in here/deep']) await mkdir(join(folder, name), { recursive: true });
  await writeFile(join(folder, 'outside/file'), 'stays');
});
afterEach(async () => {
  vi.unstubAllEnvs();
  for (const point of await mountPoints()) await run('umount', ['--lazy', '--', point]);
  await rm(folder, { recursive: true, force: true });
});

/** What is mounted in the folder, the innermost first. */
async function mountPoints(): Promise<string[]> {
  const { stdout } = await run('findmnt', ['--raw', '--noheadings', '--output', 'TARGET']);
  const points = stdout.toString().replaceAll('\\x20', ' ').split('\n');
  return points.filter((point) => point.startsWith(folder)).toReversed();
}

const bind = (to: string) => run('mount', ['--bind', join(folder, 'outside'), join(folder, 'bottles/agent', to)]);
const reap = () =>
  commonReapers(join(folder, 'bottles'))['directory']!({ kind: 'directory', path: join(folder, 'bottles/agent') }, {
    slug: 'agent',
  } as LedgerHeader);

test.skipIf(!isRoot)('[backend:native] what is mounted in a state folder is taken off and not removed', async () => {
  await bind('in here');
  await mkdir(join(folder, 'outside/deep'));
  await bind('in here/deep');
  expect(await mountPoints()).toHaveLength(2);
  await reap();
  expect(await mountPoints()).toEqual([]);
  expect(await readdir(join(folder, 'bottles'))).toEqual([]);
  expect(await readFile(join(folder, 'outside/file'), 'utf8')).toBe('stays');
});

test.skipIf(!isRoot)('[backend:native] a folder stays when something in it cannot be taken off', async () => {
  await bind('in here');
  const programs = join(folder, 'programs');
  await mkdir(programs);
  await writeFile(join(programs, 'umount'), '#!/bin/sh\nexit 0\n');
  await chmod(join(programs, 'umount'), 0o755);
  vi.stubEnv('PATH', programs);
  await expect(reap()).rejects.toMatchObject({ code: 'CONFLICT' });
  vi.unstubAllEnvs();
  expect(await readFile(join(folder, 'outside/file'), 'utf8')).toBe('stays');
});
