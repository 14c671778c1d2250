import type { BigIntStats } from 'node:fs';

import { expect, it } from 'vitest';

import { checkUnchanged, stampOf } from './file-stamp.ts';

const fields = { dev: 1n, ino: 2n, mtimeNs: 3n, size: 4n, isFile: () => true };
const stats = fields as BigIntStats;

it('a file is the one that was listed only with the same place, time, size and kind', () => {
  const stamp = stampOf(stats);
  expect(() => checkUnchanged('f', 4, stamp, stats)).not.toThrow();
  const others = [{ dev: 9n }, { ino: 9n }, { mtimeNs: 9n }, { size: 9n }, { isFile: () => false }];
  for (const other of others) {
    const changed = { ...fields, ...other } as BigIntStats;
    expect(() => checkUnchanged('f', 4, stamp, changed), JSON.stringify(Object.keys(other))).toThrow(
      expect.objectContaining({ code: 'CONTEXT_CHANGED', details: { path: 'f' } }),
    );
  }
  expect(() => checkUnchanged('f', 4, undefined, stats)).toThrow();
});
