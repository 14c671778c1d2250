import { mkdir, mkdtemp, realpath, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { checkMounts } from './mounts.ts';

let folder: string;
beforeAll(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'jail-mounts-')));
  for (const name of ['work/src', 'home/keys', 'homework']) await mkdir(join(folder, name), { recursive: true });
  await symlink(join(folder, 'home'), join(folder, 'work/link'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const check = (source: string, target = '/mnt') =>
  checkMounts([{ type: 'read-only', source: join(folder, source), target }], [join(folder, 'home')]);

test('a source is what its path leads to', async () => {
  expect(await check('work/../work/src')).toEqual([
    { type: 'read-only', source: join(folder, 'work/src'), target: '/mnt' },
  ]);
  // It only begins like a hidden one.
  expect(await check('homework')).toHaveLength(1);
});

test('hidden folders are shown neither directly, nor by a link, nor from above or within', async () => {
  for (const source of ['home', 'home/keys', 'work/link', 'work/link/keys', '.']) {
    await expect(check(source), source).rejects.toMatchObject({ code: 'USAGE' });
  }
});

test('a hidden folder may itself be named by a link', async () => {
  const mount = { type: 'read-only' as const, source: join(folder, 'home/keys'), target: '/mnt' };
  await expect(checkMounts([mount], [join(folder, 'work/link')])).rejects.toMatchObject({ code: 'USAGE' });
});

test('targets that would hide what a sandbox is made of are refused', async () => {
  for (const target of ['/', '//', '/.', '/proc', '/proc/x', '/dev/shm', '/sys', 'x', '/a/../b', '/a\0b']) {
    await expect(check('work', target), target).rejects.toMatchObject({ code: 'USAGE' });
  }
  for (const target of ['/process', '/devel', '/a/proc', '/...']) expect(await check('work', target)).toHaveLength(1);
});

test('more than 64 mounts are too many', async () => {
  const mount = { type: 'tmpfs' as const, target: '/m', sizeBytes: 4096 };
  expect(
    await checkMounts(
      Array.from({ length: 64 }, () => mount),
      [],
    ),
  ).toHaveLength(64);
  const many = Array.from({ length: 65 }, () => mount);
  await expect(checkMounts(many, [])).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
});
