import { linkSync } from 'node:fs';
import { mkdtemp, open, readdir, readFile, rename, rm, stat, truncate, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { claimLedger, ledgerPath, readLedger, type LedgerOptions } from './ledger.ts';

/** What a file does in place of what it would do. */
type Change = (handle: FileHandle, path: string) => void;
const disk = vi.hoisted(() => ({ change: undefined as Change | undefined, opened: 0, closed: 0 }));

vi.mock(import('node:fs/promises'), async (original) => {
  const real = await original();
  const openChanged: typeof open = async (path, ...how) => {
    const handle = await real.open(path, ...how);
    disk.opened++;
    const close = handle.close.bind(handle);
    handle.close = async () => {
      disk.closed++;
      await close();
    };
    disk.change?.(handle, String(path));
    return handle;
  };
  return { ...real, open: openChanged };
});

let directory: string;
let options: LedgerOptions;
beforeEach(async () => {
  directory = join(await mkdtemp(join(tmpdir(), 'decant-ledger-')), 'bottles');
  options = { directory, name: 'agent', backend: 'native', image: 'app', wallTimeMs: 60_000 };
  Object.assign(disk, { opened: 0, closed: 0 });
});
afterEach(async () => {
  disk.change = undefined;
  await rm(join(directory, '..'), { recursive: true, force: true });
});

it.each(['the file', 'its name'])(
  'a claim is made when %s is on the disk, and a note when the kernel has it',
  async (last) => {
    // Each waits until the other one is done, and then for this test.
    const done = { 'the file': Promise.withResolvers<void>(), 'its name': Promise.withResolvers<void>() };
    const written = Promise.withResolvers<void>();
    disk.change = (handle, path) => {
      const [call, what] = path === directory ? (['sync', 'its name'] as const) : (['datasync', 'the file'] as const);
      const sync = handle[call].bind(handle);
      handle[call] = async () => {
        await sync();
        done[what].resolve();
        if (what === last) await written.promise;
      };
    };
    const ledger = await claimLedger(options);
    expect(await ledger.claim({ kind: 'early' }, false)).toBe(1);
    const settled = vi.fn<() => void>();
    const claim = ledger.claim({ kind: 'container' }, true);
    void claim.then(settled);
    await Promise.race([claim, Promise.all([done['the file'].promise, done['its name'].promise])]);
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    expect(settled).not.toHaveBeenCalled();
    // It is in the file by then, which is not enough.
    expect(await readLedger(directory, 'agent')).toMatchObject({ claims: [{ kind: 'early' }, { kind: 'container' }] });
    written.resolve();
    expect(await claim).toBe(2);
    await ledger.close('remove');
  },
);

it('is for its owner alone, and leaves no file open however many names are taken', async () => {
  const ledgers = [];
  for (let count = 0; count < 3; count++) ledgers.push(await claimLedger(options));
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
  for (const name of await readdir(directory)) expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
  // Another one takes a name between the look at the folder and the claim.
  disk.change = (_, path) => {
    if (!path.includes('.claim-')) return;
    disk.change = undefined;
    linkSync(ledgerPath(directory, 'agent'), ledgerPath(directory, 'agent-4'));
  };
  const late = await claimLedger(options);
  expect(late.header.slug).toBe('agent-5');
  for (const ledger of [...ledgers, late]) await ledger.close('keep');
  expect(disk.closed).toBe(disk.opened);
});

it('no part of a line stays when the disk is full', async () => {
  let isFull = false;
  disk.change = (handle, path) => {
    if (path === directory) return;
    const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<{ bytesWritten: number }>;
    handle.write = (async (bytes: Buffer, from: number, count: number, at: number) => {
      if (!isFull) return await write(bytes, from, count, at);
      if (from > 0) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
      return await write(bytes, from, 12, at);
    }) as typeof handle.write;
  };
  const ledger = await claimLedger(options);
  await ledger.claim({ kind: 'first' }, true);
  isFull = true;
  await expect(
    ledger.claim({ kind: 'a longer one, which does not fit', path: 'x'.repeat(200) }, true),
  ).rejects.toThrow();
  expect(await readLedger(directory, 'agent')).toMatchObject({ claims: [{ kind: 'first' }] });
  expect(await readFile(ledgerPath(directory, 'agent'), 'utf8')).toMatch(/\}\n$/);
  isFull = false;
  await ledger.claim({ kind: 'last' }, true);
  expect(await readLedger(directory, 'agent')).toMatchObject({ claims: [{ kind: 'first' }, { kind: 'last' }] });
  await ledger.close('remove');
});

it('of another slug, or too large to be one, is broken', async () => {
  const ledger = await claimLedger(options);
  await ledger.close('keep');
  await rename(ledgerPath(directory, 'agent'), ledgerPath(directory, 'other'));
  await expect(readLedger(directory, 'other')).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  await rename(ledgerPath(directory, 'other'), ledgerPath(directory, 'agent'));
  expect(await readLedger(directory, 'agent')).toMatchObject({ closed: true });
  await truncate(ledgerPath(directory, 'agent'), 4 * 1024 * 1024 + 1);
  await expect(readLedger(directory, 'agent')).rejects.toThrow('has more than 4194304 bytes');
});
