import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';

import { MIB } from '@decant/core';
import { findProgram } from '@decant/core/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { VolumeStore, type AcquireOptions } from './volume-store.ts';

const exec = promisify(execFile);
const available = (await findProgram('mkfs.ext4')) !== undefined;

describe.skipIf(!available)('[backend:e2fsprogs] volumes of builds', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'volumes-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  const open = (cacheBytes = 100 * MIB) => new VolumeStore({ directory, cacheBytes });
  const wanted = (key: string | undefined, change: Partial<AcquireOptions> = {}): AcquireOptions => ({
    cacheOf: key === undefined ? undefined : ['acme', key],
    fresh: false,
    sizeBytes: 32 * MIB,
    ...change,
  });

  it('are clean filesystems of the size asked for, in sparse files with ids of their own', async () => {
    const volumes = open();
    const [one, two] = [await volumes.acquire(wanted('a')), await volumes.acquire(wanted('b'))];
    expect(Math.abs(one.firstHostId - two.firstHostId)).toBeGreaterThanOrEqual(65_536);
    for (const { file } of [one, two]) {
      await exec('e2fsck', ['-fn', file]);
      expect(await stat(file)).toMatchObject({ size: 32 * MIB, mode: 0o100600 });
      expect((await stat(file)).blocks * 512).toBeLessThan(8 * MIB);
    }
    const { stdout } = await exec('debugfs', ['-R', 'stat /', one.file]);
    expect(stdout).toContain(`User: ${one.firstHostId}`);
  });

  it('come back for the same key of the same namespace, one build at a time', async () => {
    const volumes = open();
    const first = await volumes.acquire(wanted('a'));
    const meanwhile = await volumes.acquire(wanted('a'));
    expect([first.reused, meanwhile.reused, meanwhile.file === first.file]).toEqual([false, false, false]);
    await meanwhile.release(false);
    await first.release(true);
    const again = await open().acquire(wanted('a'));
    expect([again.reused, again.file, again.firstHostId]).toEqual([true, first.file, first.firstHostId]);
    await again.release(true);
    const others = [wanted('b'), wanted('a', { cacheOf: ['other', 'a'] }), wanted(undefined)];
    for (const options of others) expect((await open().acquire(options)).reused).toBe(false);
  });

  it('are thrown away when they are not to be kept, not wanted, of another size, or half full', async () => {
    const volumes = open();
    for (const change of [{ fresh: true }, { sizeBytes: 48 * MIB }]) {
      await (await volumes.acquire(wanted('a'))).release(true);
      const next = await volumes.acquire(wanted('a', change));
      expect(next.reused).toBe(false);
      await next.release(false);
      expect(await readdir(directory)).toEqual([]);
    }
    await (await volumes.acquire(wanted(undefined))).release(true);
    expect(await readdir(directory)).toEqual([]);
    const full = await volumes.acquire(wanted('a'));
    await exec('dd', ['if=/dev/urandom', `of=${full.file}`, 'bs=1M', 'count=17', 'seek=8', 'conv=notrunc']);
    await full.release(true);
    expect(await readdir(directory)).toEqual([]);
  });

  it('are kept within a bound, the oldest going first', async () => {
    const volumes = open(3 * MIB);
    for (const key of ['old', 'new']) {
      const volume = await volumes.acquire(wanted(key));
      await exec('dd', ['if=/dev/urandom', `of=${volume.file}`, 'bs=1M', 'count=2', 'seek=8', 'conv=notrunc']);
      await volume.release(true);
    }
    expect((await volumes.acquire(wanted('new'))).reused).toBe(true);
    expect((await volumes.acquire(wanted('old'))).reused).toBe(false);
  });

  it('that somebody uses are left alone, and those of who is gone are not used again', async () => {
    const held = await open().acquire(wanted('a'));
    // As another process: it knows of the lock only.
    const second = await open().acquire(wanted('a'));
    expect([second.reused, second.file === held.file]).toEqual([false, false]);
    await stat(held.file);
    await second.release(false);
    await held.release(true);
    const lock = held.file.replace(/ext4$/, 'lock');
    // Its number is one of today, of a process that began at another time.
    await writeFile(lock, `${process.pid} 1`);
    const next = await open().acquire(wanted('a'));
    expect(next.reused).toBe(false);
    await exec('e2fsck', ['-fn', next.file]);
    await next.release(true);
    expect((await readdir(directory)).toSorted()).toEqual(
      ['ext4', 'json'].map((suffix) => basename(next.file).replace(/ext4$/, suffix)),
    );
    await writeFile(next.file.replace(/ext4$/, 'lock'), `${process.pid} 1`);
    await open().recover();
    expect(await readdir(directory)).toEqual([]);
  });

  it('have locks that say whose they are from the moment they are there', async () => {
    const events = watch(directory);
    const seen: string[] = [];
    const marked = new Promise<void>((resolve) =>
      events.on('change', (type, name) => {
        seen.push(`${type} ${String(name)}`);
        if (name === 'mark') resolve();
      }),
    );
    const volume = await open().acquire(wanted('a'));
    await volume.release(true);
    // Events come in order, some time later.
    await writeFile(join(directory, 'mark'), '');
    await marked;
    events.close();
    const lock = volume.file.replace(/.*\/|ext4$/g, '') + 'lock';
    // Made and removed, and never written to: who looks between the two would take it for one that nobody holds.
    expect(seen.filter((event) => event.endsWith(` ${lock}`))).toEqual([`rename ${lock}`, `rename ${lock}`]);
    expect(await readdir(directory)).toHaveLength(3);
  });

  it('of a killed process are gone at the next start, caches that nobody used stay', async () => {
    await (await open().acquire(wanted('kept'))).release(true);
    const module = new URL('volume-store.ts', import.meta.url).href;
    const script = `import { VolumeStore } from ${JSON.stringify(module)};
      const volumes = new VolumeStore({ directory: ${JSON.stringify(directory)}, cacheBytes: 1e9 });
      await volumes.acquire({ cacheOf: ['acme', 'lost'], fresh: false, sizeBytes: ${32 * MIB} });
      console.log('ready'); setInterval(() => {}, 1000);`;
    const args = ['--conditions=@decant/source', '--input-type=module', '--eval', script];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const gone = once(child, 'exit');
    try {
      await once(child.stdout, 'data');
      // Somebody else who starts meanwhile leaves what is in use alone.
      await open().recover();
      expect((await readdir(directory)).filter((name) => name.endsWith('.ext4'))).toHaveLength(2);
    } finally {
      child.kill('SIGKILL');
      await gone;
    }
    await writeFile(join(directory, 'unrelated'), '');
    await open().recover();
    const names = await readdir(directory);
    expect(names.filter((name) => name.endsWith('.ext4'))).toHaveLength(1);
    expect(names).toContain('unrelated');
    expect((await open().acquire(wanted('kept'))).reused).toBe(true);
  });
});
