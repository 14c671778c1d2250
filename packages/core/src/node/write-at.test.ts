import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, it, vi } from 'vitest';

import { writeAt } from './write-at.ts';

it('goes on where a write took a part only', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'decant-write-'));
  try {
    const path = join(folder, 'file');
    await using file = await open(path, 'w');
    const bytes = new Uint8Array(100).map((_, i) => i + 1);
    const write = file.write.bind(file);
    const part = vi
      .spyOn(file, 'write')
      .mockImplementation(((from: Uint8Array, at: number, length: number, position: number) =>
        write(from, at, Math.min(length, 33), position)) as typeof file.write);
    await writeAt(file, bytes, 7);
    expect(part).toHaveBeenCalledTimes(4);
    expect(await readFile(path)).toEqual(Buffer.concat([Buffer.alloc(7), bytes]));
  } finally {
    await rm(folder, { recursive: true });
  }
});
