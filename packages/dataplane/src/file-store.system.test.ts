import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { sleep, type ObjectStore } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { createFileObjectStore } from './file-store.ts';

const MIB = 1024 * 1024;
const canMount = process.getuid?.() === 0 && (await findProgram('mount')) !== undefined;

describe.skipIf(!canMount)('[backend:tmpfs] a file store on a disk of 48 MiB', () => {
  let directory: string;
  let store: ObjectStore;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'decant-small-disk-'));
    await run('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'decant-test', directory]);
    store = createFileObjectStore({ directory, fsync: 'always' });
  });
  afterAll(async () => {
    await run('umount', [directory]);
    await rm(directory, { recursive: true });
  });

  const full = expect.objectContaining({ code: 'DISK_FULL', hint: expect.any(String) as string });

  it('joins 32 MiB of parts, which two copies would not fit beside', async () => {
    const id = await store.createMultipart('joined');
    const parts = [];
    for (let n = 1; n <= 4; n++) parts.push(await store.putPart('joined', id, n, new Uint8Array(8 * MIB).fill(n)));
    await store.completeMultipart('joined', id, parts);
    expect(await store.get('joined', { range: { offset: 8 * MIB - 1, lengthBytes: 2 } })).toEqual(Uint8Array.of(1, 2));
    expect(await store.head('joined')).toEqual({ key: 'joined', sizeBytes: 32 * MIB });
    await store.delete('joined');
  });

  it('says that the disk is full, shows nothing of what did not fit, and goes on', async () => {
    await store.put('before', new Uint8Array(8 * MIB));
    async function* large() {
      for (let index = 0; index < 64; index++) {
        await Promise.resolve();
        yield new Uint8Array(MIB);
      }
    }
    await expect(store.put('before', large())).rejects.toEqual(full);
    await expect(store.put('other', large())).rejects.toEqual(full);
    const id = await store.createMultipart('parts');
    await expect(store.putPart('parts', id, 1, large())).rejects.toEqual(full);
    await store.abortMultipart('parts', id);
    expect(await store.head('before')).toEqual({ key: 'before', sizeBytes: 8 * MIB });
    expect(await store.head('other')).toBeUndefined();
    expect(await readdir(join(directory, 'temp'))).toEqual([]);
    await store.put('after', new Uint8Array(32 * MIB));
  });
});

describe('a file store used by processes that are killed', () => {
  it('shows whole objects only, and every one that a writer was told of', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'decant-killed-'));
    const module = pathToFileURL(join(import.meta.dirname, 'file-store.ts')).href;
    const program = `
      const { createFileObjectStore } = await import(${JSON.stringify(module)});
      const store = createFileObjectStore({ directory: ${JSON.stringify(directory)}, fsync: 'never' });
      for (let n = 0; ; n++) {
        const body = new Uint8Array(200_000).fill(n % 251);
        const key = 'ns/' + process.pid + '/' + n;
        if (n % 2 === 0) await store.put(key, body);
        else {
          const id = await store.createMultipart(key);
          const parts = [];
          for (const part of [1, 2]) parts.push(await store.putPart(key, id, part, body.subarray(0, 100_000)));
          await store.completeMultipart(key, id, parts);
        }
        process.stdout.write(key + '\\n');
      }`;
    try {
      const told: string[] = [];
      for (let round = 0; round < 4; round++) {
        const child = spawn(process.execPath, ['--conditions=@decant/source', '--input-type=module', '-e', program], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        const output: Buffer[] = [];
        child.stdout.on('data', (data: Buffer) => output.push(data));
        const ended = new Promise((resolve) => child.once('close', resolve));
        const written = () => Buffer.concat(output).toString().split('\n').length - 1;
        for (let waited = 0; written() < 2 && waited < 60_000; waited += 5) await sleep(5);
        // Until any moment of its work.
        await sleep(Math.random() * 50);
        child.kill('SIGKILL');
        await ended;
        told.push(...Buffer.concat(output).toString().split('\n').slice(0, -1));
      }
      expect(told.length).toBeGreaterThanOrEqual(8);
      const store = createFileObjectStore({ directory, fsync: 'never' });
      const seen = new Set<string>();
      for await (const { key, sizeBytes } of store.list('ns/')) {
        expect(sizeBytes).toBe(200_000);
        const bytes = await store.get(key);
        expect(bytes.every((byte) => byte === Number(key.split('/')[2]) % 251)).toBe(true);
        seen.add(key);
      }
      for (const key of told) expect(seen.has(key)).toBe(true);
      await store.put('ns/next', randomBytes(10));
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
