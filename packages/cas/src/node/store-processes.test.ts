import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { fromHex } from '@decant/core';
import { chunkSourceContract } from '@decant/core/contract';
import { afterEach, describe, expect, it } from 'vitest';

import { chunkOf, randomPages } from '../test-data.ts';
import { createFileChunkStore } from './file-chunk-store.ts';
import { loadNodeHashProvider } from './node-hash-provider.ts';
import { openPackDirectory, packsFolder } from './pack-directory.ts';
import { PackWriter } from './pack-writer.ts';
import { extent, writeSparse } from './test-image.ts';

const hash = await loadNodeHashProvider();
const PROGRAM = new URL('program/main.ts', import.meta.url).pathname;
const ARGS = ['--conditions=@decant/source', '--no-warnings'];
const folders: string[] = [];
const children: ChildProcess[] = [];

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'decant-processes-'));
  folders.push(path);
  return path;
}

afterEach(async () => {
  for (const child of children.splice(0)) if (child.exitCode === null) child.kill('SIGKILL');
  for (const path of folders.splice(0)) await rm(path, { recursive: true, force: true });
});

/** A process that runs `script` as a module and says what it prints. */
function start(script: string): ChildProcess & { readonly lines: Promise<string> } {
  const child = spawn(process.execPath, [...ARGS, '--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  let printed = '';
  child.stdout.on('data', (data: Buffer) => (printed += data.toString('utf8')));
  return Object.assign(child, { lines: once(child, 'close').then(() => printed) });
}

const program = (...args: string[]) => promisify(execFile)(process.execPath, [...ARGS, PROGRAM, ...args]);

describe('a directory of packs as a chunk source', () => {
  chunkSourceContract(async (frames) => {
    const store = await folder();
    const packs = packsFolder(store);
    await mkdir(packs);
    for (const name of ['not a pack', `${'0'.repeat(64)}.pack.partial`]) await writeFile(join(packs, name), '');
    for (const part of [frames.slice(0, 170), frames.slice(170)]) {
      using writer = new PackWriter({ directory: store, prefix: `from-${part[0]!.id}`, hash, fsync: false });
      for (const frame of part) writer.add(fromHex(frame.id), frame);
      for (const { path, digest } of writer.finish()) await rename(path, join(packs, `${digest}.pack`));
    }
    return { source: await openPackDirectory(store, { hash }), [Symbol.asyncDispose]: () => Promise.resolve() };
  });
});

describe('processes that share a directory of chunks', () => {
  it('give every reader whole chunks, also when one of them is killed while it writes', async () => {
    const directory = await folder();
    const killed = join(await folder(), 'killed');
    const module = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
    // Each writes the same chunks over and over, in another order, and removes some in between.
    const writer = (offset: number) => `
      import { createFileChunkStore } from ${module('file-chunk-store.ts')};
      import { loadNodeHashProvider } from ${module('node-hash-provider.ts')};
      import { chunkOf, randomPages } from ${module('../test-data.ts')};
      import { existsSync } from 'node:fs';
      import { rm } from 'node:fs/promises';
      const hash = await loadNodeHashProvider();
      const store = createFileChunkStore({ directory: ${JSON.stringify(directory)}, maxBytes: 2 ** 30, hash });
      const chunks = Array.from({ length: 40 }, (_, i) => chunkOf(randomPages(i + 1, 64), hash));
      console.log('ready');
      while (!existsSync(${JSON.stringify(killed)})) {
        for (let i = 0; i < chunks.length; i++) {
          const { id, plain } = chunks[(i * 7 + ${offset}) % chunks.length];
          await store.put(id, plain);
          if (i % 5 === 0) await rm(${JSON.stringify(directory)} + '/' + id.slice(0, 2) + '/' + id.slice(2), { force: true });
        }
      }
      for (const { id, plain } of chunks) await store.put(id, plain);
    `;
    const victim = start(writer(0));
    const survivors = [start(writer(13)), start(writer(29))];
    await once(victim.stdout!, 'data');
    const store = createFileChunkStore({ directory, maxBytes: 2 ** 30, hash });
    const chunks = Array.from({ length: 40 }, (_, i) => chunkOf(randomPages(i + 1, 64), hash));
    let found = 0;
    const readAll = async () => {
      for (const { id, plain, plainBytes } of chunks) {
        const bytes = await store.get(id, plainBytes);
        if (bytes === undefined) continue;
        expect(Buffer.compare(bytes, plain)).toBe(0);
        found++;
      }
    };
    for (let i = 0; i < 5; i++) await readAll();
    victim.kill('SIGKILL');
    await once(victim, 'close');
    expect(victim.signalCode).toBe('SIGKILL');
    await readAll();
    await writeFile(killed, '');
    while (survivors.some((child) => child.exitCode === null)) await readAll();
    expect(survivors.map((child) => child.exitCode)).toEqual([0, 0]);
    found = 0;
    await readAll();
    expect(found).toBe(chunks.length);
    // What the killed process was writing is at most one file, and not among the chunks.
    expect((await readdir(join(directory, 'tmp'))).length).toBeLessThanOrEqual(1);
  });

  it('make images into one store at once; one that is killed leaves a store in which all is in order', async () => {
    const directory = await folder();
    const store = join(directory, 'store');
    const size = 220 * 2 ** 20;
    const shared = extent(0, 8000, 1);
    const files = await Promise.all(
      ['a', 'b', 'c'].map(async (name, i) => {
        const file = join(directory, `${name}.img`);
        await writeSparse(file, [shared, extent(20_000, 6000, 10 + i)], size);
        return file;
      }),
    );
    const victim = spawn(process.execPath, [...ARGS, PROGRAM, 'make', files[2]!, '--store', store, '--level', '19'], {
      stdio: 'ignore',
    });
    children.push(victim);
    const makes = files.slice(0, 2).map((file) => program('make', file, '--store', store, '-o', `${file}.manifest`));
    // In the middle of its work: there is a first pack under way.
    for (let temporary: string[] = []; temporary.length === 0;) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      temporary = (await readdir(join(store, 'tmp'), { recursive: true }).catch(() => [])).filter((name) =>
        name.startsWith(`${victim.pid}-`),
      );
    }
    victim.kill('SIGKILL');
    await once(victim, 'close');
    expect(victim.signalCode).toBe('SIGKILL');
    await Promise.all(makes);
    for (const file of files.slice(0, 2)) {
      expect((await program('verify', `${file}.manifest`, '--store', store)).stdout).toContain('all in order');
    }
    await program('make', files[2]!, '--store', store, '-o', `${files[2]}.manifest`, '--level', 'raw');
    expect((await program('verify', `${files[2]}.manifest`, '--store', store)).stdout).toContain('all in order');
    expect((await readdir(packsFolder(store))).every((name) => /^[0-9a-f]{64}\.pack$/.test(name))).toBe(true);
  });
});
