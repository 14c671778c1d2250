import { expect, it } from 'vitest';

import { exponentOf, measureCounts } from './cas-linear.ts';

it('fits the exponent of a power', () => {
  const sizes = [1, 10, 100, 1000];
  expect(exponentOf(sizes.map((size) => [size, 3 * size]))).toBeCloseTo(1);
  expect(exponentOf(sizes.map((size) => [size, size ** 2 / 7]))).toBeCloseTo(2);
});

it('nothing of manifests, locators, look-ups and reads grows faster than linearly with the number of chunks', async () => {
  // The short form of `pnpm bench cas-linear`; the bound is loose for machines that are busy, and far from a square.
  for (const [name, series] of Object.entries(await measureCounts([500, 2000, 8000]))) {
    expect(exponentOf(series), name).toBeLessThan(1.45);
  }
});
