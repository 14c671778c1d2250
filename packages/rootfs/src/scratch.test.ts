import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { createScratch } from './scratch.ts';

describe('createScratch', () => {
  it('keeps bytes under no name, and only until it is disposed', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'scratch-'));
    const own = await createScratch(join(directory, 'made'));
    await own.append(Buffer.from('hello '));
    await own.append(Buffer.from('world'));
    expect(own.sizeBytes).toBe(11);
    const target = Buffer.alloc(20);
    expect(own.readSync(target, 6)).toBe(5);
    expect(target.toString('latin1', 0, 5)).toBe('world');
    expect(own.readSync(target, 11)).toBe(0);
    expect(await readdir(join(directory, 'made'))).toEqual([]);
    await own[Symbol.asyncDispose]();
    expect(() => own.readSync(target, 0)).toThrow();
    await rm(directory, { recursive: true });
  });
});
