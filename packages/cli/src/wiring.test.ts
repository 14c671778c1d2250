import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { decantPaths, saveLogin } from '@decant/sdk';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

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

describe('a stored login', () => {
  /** The key that each request brought. */
  const keys: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    keys.push(request.headers.authorization);
    response.setHeader('content-type', 'application/json').end('{"images":[],"nextCursor":null}');
  });
  let port: number;
  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ({ port } = server.address() as AddressInfo);
  });
  afterAll(() => void server.close());

  async function keySent(env: Record<string, string>): Promise<string | undefined> {
    keys.length = 0;
    await using wired = await wire(env);
    expect(await wired.decant.images.list()).toEqual([]);
    expect(keys.length).toBe(1);
    return keys[0];
  }

  test('names the server, and its key goes to that server and to no other', async () => {
    const home = join(folder, 'logged-in');
    const paths = decantPaths({ DECANT_HOME: home });
    const url = `http://127.0.0.1:${port}`;
    await saveLogin(paths, { url, key: 'stored' });
    expect((await stat(join(home, 'login.json'))).mode & 0o777).toBe(0o600);
    const env = { DECANT_HOME: home };
    expect(await keySent(env)).toBe('Bearer stored');
    expect(await keySent({ ...env, DECANT_API_KEY: '' })).toBe('Bearer stored');
    expect(await keySent({ ...env, DECANT_API_KEY: 'given' })).toBe('Bearer given');
    // However the same server is written.
    for (const same of [url, `${url}/`, `HTTP://127.0.0.1:${port}`]) {
      expect(await keySent({ ...env, DECANT_URL: same })).toBe('Bearer stored');
    }
    for (const other of [`http://localhost:${port}`, `http://127.0.0.1:${port}/api`]) {
      expect(await keySent({ ...env, DECANT_URL: other })).toBeUndefined();
    }
    await using here = await wire({ ...env, DECANT_URL: '' });
    keys.length = 0;
    expect(await here.decant.images.list()).toEqual([]);
    expect(keys).toEqual([]);
  });

  test('that cannot be read or stored', async () => {
    const home = join(folder, 'broken-login');
    await mkdir(home);
    for (const text of ['', '{"url":1}', 'null', '{"url":"http://x"}']) {
      await writeFile(join(home, 'login.json'), text);
      await expect(wire({ DECANT_HOME: home })).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
        hint: expect.stringContaining('decant login') as string,
      });
      // What is named is used all the same.
      await using wired = await wire({ DECANT_HOME: home, DECANT_URL: '' });
      expect(await wired.decant.images.list()).toEqual([]);
    }
    await saveLogin(decantPaths({ DECANT_HOME: home }), { url: 'http://x', key: 'k' });
    expect(JSON.parse(await readFile(join(home, 'login.json'), 'utf8'))).toEqual({ url: 'http://x', key: 'k' });
    const taken = join(folder, 'taken');
    await mkdir(join(taken, 'login.json'), { recursive: true });
    await expect(saveLogin(decantPaths({ DECANT_HOME: taken }), { url: 'http://x', key: 'secret' })).rejects.toThrow();
    expect(await readdir(taken)).toEqual(['login.json']);
  });
});
