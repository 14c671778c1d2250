import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { benchPages } from './bench-page.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'decant-bench-page-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

it('makes a page with every field and a bar for each goal', () => {
  const result = {
    ...{ name: 'x', short: false, input: { sizeBytes: 5 }, machine: { processors: 2 }, absolute: { seconds: 3 } },
    fields: { speed: 1.5, memory: 50, peer: null, leftovers: 0, seconds: 0.001 },
    goals: {
      speed: { least: 3 },
      memory: { most: 200 },
      peer: { least: 1 },
      leftovers: { most: 0 },
      seconds: { most: 5 },
    },
  };
  writeFileSync(join(folder, 'x.json'), JSON.stringify(result));
  expect(benchPages(folder, folder)?.items).toEqual([{ text: 'x', link: '/benchmarks/x' }]);
  const page = readFileSync(join(folder, 'benchmarks/x.md'), 'utf8');
  expect(page).toContain('| `speed` | 1.5 | at least 3 | MISSED |');
  expect(page).toContain('| `memory` | 50 | at most 200 | met |');
  expect(page).toContain('| `peer` | – | at least 1 | not measured |');
  const bars = [...page.matchAll(/<rect x="([\d.]+)" .*? width="([\d.]+)"/g)].map(([, x, width]) => [
    Number(x),
    Number(width),
  ]);
  expect(bars).toHaveLength(4);
  const [speed, memory, leftovers, seconds] = bars as [number, number][] & { length: 4 };
  // Half of the goal ends left of the line, four times the goal is twice as far on its right, and nothing where nothing may be is on it.
  expect(memory![1] / speed![1]).toBeCloseTo(2, 1);
  expect(speed![0] + speed![1]).toBeCloseTo(memory![0], 0);
  expect(leftovers).toEqual([memory![0], 1]);
  expect(seconds![1] / speed![1]).toBeCloseTo(6, 1);
  expect(page).not.toMatch(/NaN|Infinity/);
});

it('makes nothing without results', () => {
  expect(benchPages(join(folder, 'none'), folder)).toBeUndefined();
});
