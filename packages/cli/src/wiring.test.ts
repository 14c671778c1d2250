import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { wire } from './wiring.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-wiring-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('with no server named it works on the data directory, in this process', async () => {
  await using wired = await wire({ DECANT_HOME: join(folder, 'home'), DECANT_URL: '' });
  expect(await wired.decant.images.list()).toEqual([]);
});

test('a data directory that is a file', async () => {
  const file = join(folder, 'file');
  await writeFile(file, '');
  await expect(wire({ DECANT_HOME: file })).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    hint: expect.stringContaining('DECANT_HOME') as string,
  });
});

test.each(['decant.example', 'ftp://decant.example', '/run/decant', 'http://'])('no address: %j', async (url) => {
  await expect(wire({ DECANT_HOME: folder, DECANT_URL: url })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
});

test('a server that does not answer is unavailable, and nothing is made here', async () => {
  await using wired = await wire({ DECANT_HOME: join(folder, 'unused'), DECANT_URL: 'http://127.0.0.1:1' });
  await expect(wired.decant.keys.create()).rejects.toMatchObject({ code: 'HTTP_UNREACHABLE' });
});
