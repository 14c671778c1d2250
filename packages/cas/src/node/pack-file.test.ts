import fs from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { MIB } from '@decant/core';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

import { randomBytes } from '../test-data.ts';
import { PackFile } from './pack-file.ts';

let folder: string;
let count = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-pack-file-'));
});
afterAll(() => rm(folder, { recursive: true }));

const newFile = () => {
  const path = join(folder, String(count++));
  return { path, file: new PackFile(path, new Uint8Array(PackFile.KEPT_BYTES)) };
};

describe('a pack file', () => {
  it('holds what was appended, although the memory is used again after each settling', async () => {
    const source = randomBytes(5, 3 * MIB);
    const length = fc.oneof(
      fc.nat(100),
      fc.integer({ min: 60_000, max: 70_000 }),
      fc.integer({ min: 1, max: 2 ** 20 + 5 }),
    );
    const steps = fc.array(fc.record({ length, settle: fc.boolean() }), { maxLength: 25 });
    await fc.assert(
      fc.asyncProperty(steps, fc.boolean(), async (all, fsync) => {
        const { path, file } = newFile();
        const parts: Uint8Array[] = [];
        let lent: Uint8Array[] = [];
        for (const [i, { length, settle }] of all.entries()) {
          const part = source.slice(i * 1000, i * 1000 + length);
          parts.push(part.slice());
          lent.push(part);
          file.append(part);
          if (!settle) continue;
          file.settle();
          for (const bytes of lent) bytes.fill(0xee);
          lent = [];
        }
        file.finish(fsync);
        file[Symbol.dispose]();
        expect(Buffer.compare(await readFile(path), Buffer.concat(parts))).toBe(0);
        await rm(path);
      }),
      { numRuns: 60 },
    );
  });

  it('takes more pieces than one write can have', async () => {
    const { path, file } = newFile();
    const bytes = randomBytes(6, 5000);
    for (let i = 0; i < bytes.length; i++) file.append(bytes.subarray(i, i + 1));
    file.finish(false);
    file[Symbol.dispose]();
    expect(new Uint8Array(await readFile(path))).toEqual(bytes);
  });

  it('goes on where a write took a part only, is on the disk at the end if wanted, and is closed', async () => {
    const writev = fs.writevSync;
    const calls: string[] = [];
    const spies = [
      vi.spyOn(fs, 'writevSync').mockImplementation((fd, parts) => {
        calls.push('write');
        return writev(fd, [(parts[0] as Uint8Array).subarray(0, 50_001)]);
      }),
      vi.spyOn(fs, 'fsyncSync').mockImplementation(() => void calls.push('fsync')),
      vi.spyOn(fs, 'closeSync'),
    ];
    syncBuiltinESMExports();
    try {
      for (const fsync of [false, true]) {
        const { path, file } = newFile();
        const bytes = randomBytes(7, 3 * MIB + 5);
        for (let at = 0; at < bytes.length; at += 100_000) file.append(bytes.subarray(at, at + 100_000));
        file.finish(fsync);
        expect(calls.indexOf('fsync')).toBe(fsync ? calls.length - 1 : -1);
        file[Symbol.dispose]();
        expect(spies[2]).toHaveBeenCalledTimes(fsync ? 2 : 1);
        expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
      }
    } finally {
      for (const spy of spies) spy.mockRestore();
      syncBuiltinESMExports();
    }
  });

  it('does not write over a file that is there', () => {
    const { path, file } = newFile();
    file[Symbol.dispose]();
    expect(() => new PackFile(path, new Uint8Array(PackFile.KEPT_BYTES))).toThrow(/EEXIST/);
  });
});
