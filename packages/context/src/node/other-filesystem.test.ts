import { chmod, link, mkdir, mkdtemp, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, it } from 'vitest';

import { digestContext, openContext } from './index.ts';

const SHARED_MEMORY = '/dev/shm';
const [memory, disk] = await Promise.all([SHARED_MEMORY, tmpdir()].map((path) => stat(path).catch(() => undefined)));
const differ = memory !== undefined && disk !== undefined && memory.dev !== disk.dev;

/** The same tree, made in another order and on another day. */
async function make(parent: string, names: readonly string[], time: number): Promise<string> {
  const root = await mkdtemp(join(parent, 'decant-filesystem-'));
  await mkdir(join(root, 'd/e'), { recursive: true });
  for (const name of names) await writeFile(join(root, name), `content of ${name}`);
  await symlink('d/a', join(root, 'lnk'));
  await link(join(root, 'd/a'), join(root, 'd/hard'));
  await chmod(join(root, 'd/b'), 0o755);
  for (const name of [...names, 'd/e', 'd']) await utimes(join(root, name), time, time);
  return root;
}

it.skipIf(!differ)('gives equal trees on different filesystems and days one digest', async () => {
  const names = ['Dockerfile', 'd/a', 'd/b', 'd/e/ünï', 'z'];
  const roots = [await make(SHARED_MEMORY, names, 1), await make(tmpdir(), names.toReversed(), 2_000_000_000)];
  try {
    const digests = [];
    for (const directory of roots) digests.push(await digestContext(await openContext({ directory })));
    expect(digests[0]).toEqual(digests[1]);
    await writeFile(join(roots[1]!, 'z'), 'other');
    expect(await digestContext(await openContext({ directory: roots[1]! }))).not.toEqual(digests[0]);
  } finally {
    for (const root of roots) await rm(root, { recursive: true });
  }
});
