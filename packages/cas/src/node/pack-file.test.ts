import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { MIB } from '@decant/core';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

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

  it('does not write over a file that is there', () => {
    const { path, file } = newFile();
    file[Symbol.dispose]();
    expect(() => new PackFile(path, new Uint8Array(PackFile.KEPT_BYTES))).toThrow(/EEXIST/);
  });
});
