import { expect, it } from 'vitest';

import { exponentOf, measureCounts, steepest } from './cas-linear.ts';

it('fits the exponent of a power', () => {
  const sizes = [1, 10, 100, 1000];
  expect(exponentOf(sizes.map((size) => [size, 3 * size]))).toBeCloseTo(1);
  expect(exponentOf(sizes.map((size) => [size, size ** 2 / 7]))).toBeCloseTo(2);
});

it('nothing of manifests, locators, look-ups and reads grows faster than linearly with the number of chunks', async () => {
  // The short form of `pnpm bench cas-linear`; the bound is loose and far from a square. What else the machine does is
  // another thing each time, a square is always one.
  const measured = async () => steepest(await measureCounts([500, 2000, 8000]));
  let [name, exponent] = await measured();
  for (let again = 0; again < 2 && exponent >= 1.45; again++) [name, exponent] = await measured();
  expect(exponent, name).toBeLessThan(1.45);
});
