import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { cleanUpLeftovers, makeRunFolder } from './leftovers.ts';

let state: string;
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), 'jail-state-'));
});
afterEach(async () => {
  await rm(state, { recursive: true });
});

test.skipIf(process.platform !== 'linux')('live runs stay, those of ended processes and earlier boots go', async () => {
  const live = basename(await makeRunFolder(state));
  const parts = live.split('-');
  const as = (change: Record<number, string>) => parts.map((part, i) => change[i] ?? part).join('-');
  const reused = as({ 4: `${Number(parts[4]) - 1}` });
  const ended = as({ 3: '4194304' });
  const rebooted = as({ 1: '00000000' });
  const elsewhere = as({ 2: '1', 3: '4194304' });
  for (const name of [reused, ended, rebooted, elsewhere]) await mkdir(join(state, name));
  await writeFile(join(state, ended, 'file'), '');
  await mkdir(join(state, 'something-else'));
  expect((await cleanUpLeftovers(state)).sort()).toEqual([reused, ended, rebooted].sort());
  expect((await readdir(state)).sort()).toEqual([live, elsewhere, 'something-else'].sort());
});

test('a state directory that is not there has no leftovers', async () => {
  expect(await cleanUpLeftovers(join(state, 'none'))).toEqual([]);
});
