import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { openScratchDirectory } from './scratch-directory.ts';

let parent: string;
beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), 'scratch-test-'));
});
afterEach(() => rm(parent, { recursive: true, force: true }));

it('removes its directory and what is in it', async () => {
  {
    await using scratch = await openScratchDirectory(parent);
    expect((await stat(scratch.path)).mode & 0o777).toBe(0o700);
    await writeFile(join(scratch.path, 'file'), 'x');
    expect(await readdir(parent)).toHaveLength(1);
  }
  expect(await readdir(parent)).toEqual([]);
});

it('leaves directories of living processes and foreign names alone', async () => {
  await mkdir(join(parent, 'something-else'));
  await using first = await openScratchDirectory(parent);
  await using second = await openScratchDirectory(parent);
  expect(first.path).not.toBe(second.path);
  expect(await readdir(parent)).toHaveLength(3);
});

it('removes what a killed process left', async () => {
  const module = fileURLToPath(new URL('scratch-directory.ts', import.meta.url));
  const program = `import(${JSON.stringify(module)}).then(async (m) => {
    const { path } = await m.openScratchDirectory(${JSON.stringify(parent)});
    console.log(path);
    setInterval(() => {}, 1000);
  });`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [path] = (await once(child.stdout, 'data')) as [Buffer];
  await writeFile(join(path.toString().trim(), 'half-written'), 'x');
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(await readdir(parent)).toHaveLength(1);
  await using scratch = await openScratchDirectory(parent);
  expect(await readdir(parent)).toEqual([scratch.path.slice(parent.length + 1)]);
});

it.skipIf(process.platform !== 'linux')(
  'tells live processes from ended ones, earlier boots and other namespaces',
  async () => {
    await using scratch = await openScratchDirectory(parent);
    const live = basename(scratch.path);
    const parts = live.split('-');
    const as = (change: Record<number, string>) => parts.map((part, i) => change[i] ?? part).join('-');
    const reused = as({ 4: `${Number(parts[4]) - 1}` });
    const ended = as({ 3: '4194304' });
    const rebooted = as({ 1: '00000000' });
    const elsewhere = as({ 2: '1', 3: '4194304' });
    const forgotten = as({ 2: '2', 3: '4194304' });
    for (const name of [reused, ended, rebooted, elsewhere, forgotten]) await mkdir(join(parent, name));
    const monthAgo = Date.now() / 1000 - 30 * 24 * 3600;
    await utimes(join(parent, forgotten), monthAgo, monthAgo);
    await using next = await openScratchDirectory(parent);
    expect((await readdir(parent)).sort()).toEqual([live, basename(next.path), elsewhere].sort());
  },
);
