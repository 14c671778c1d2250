import { expect, it } from 'vitest';

import { steepest } from './cas-linear.ts';
import { measureEntries } from './rootfs-linear.ts';

it('neither flattening nor writing, reading or comparing grows faster than linearly with the number of entries', async () => {
  // The short form of `pnpm bench rootfs-linear`; the bound is loose and far from a square. What else the machine does is
  // another thing each time, a square is always one.
  const measured = async () => steepest(await measureEntries([1000, 4000, 16_000]));
  let [name, exponent] = await measured();
  for (let again = 0; again < 2 && exponent >= 1.45; again++) [name, exponent] = await measured();
  expect(exponent, name).toBeLessThan(1.45);
});
