import { chmod, chown, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, it } from 'vitest';

import { removeTree } from './remove-tree.ts';

it('removeTree works also for an ordinary user who may not write in some of the directories', async () => {
  const root = await mkdtemp(join(tmpdir(), 'decant-unit-'));
  await mkdir(join(root, 'locked', 'in'), { recursive: true });
  await writeFile(join(root, 'locked', 'file'), '');
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) for (const path of ['', 'locked', 'locked/in', 'locked/file']) await chown(join(root, path), 65_534, 0);
  await chmod(join(root, 'locked'), 0o500);
  try {
    if (isRoot) process.seteuid?.(65_534);
    // A folder above may be closed to others: then this shows no more than it does to root.
    const isReached = await stat(root).then(
      () => true,
      () => false,
    );
    if (isRoot && !isReached) process.seteuid?.(0);
    // Only what is in it: the folder above belongs to somebody else.
    await removeTree(join(root, 'locked'));
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
  expect(await readdir(root)).toEqual([]);
  await rm(root, { recursive: true });
});
