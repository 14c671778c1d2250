import { expect, it } from 'vitest';

import { exponentOf } from './cas-linear.ts';
import { measureEntries } from './rootfs-linear.ts';

it('neither flattening nor writing, reading or comparing grows faster than linearly with the number of entries', async () => {
  // The short form of `pnpm bench rootfs-linear`; the bound is loose for machines that are busy, and far from a square.
  for (const [name, series] of Object.entries(await measureEntries([1000, 4000, 16_000]))) {
    expect(exponentOf(series), name).toBeLessThan(1.45);
  }
});
