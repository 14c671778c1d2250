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
    fields: { speed: 1.5, memory: 100, peer: null },
    goals: { speed: { least: 3 }, memory: { most: 200 }, peer: { least: 1 } },
  };
  writeFileSync(join(folder, 'x.json'), JSON.stringify(result));
  expect(benchPages(folder, folder)?.items).toEqual([{ text: 'x', link: '/benchmarks/x' }]);
  const page = readFileSync(join(folder, 'benchmarks/x.md'), 'utf8');
  expect(page).toContain('| `speed` | 1.5 | at least 3 | MISSED |');
  expect(page).toContain('| `memory` | 100 | at most 200 | met |');
  expect(page).toContain('| `peer` | – | at least 1 | not measured |');
  const bars = [...page.matchAll(/<rect .*? width="([\d.]+)"/g)].map(([, width]) => Number(width));
  expect(bars).toHaveLength(2);
  // Half of the goal, and twice the goal.
  expect(bars[1]! / bars[0]!).toBeCloseTo(4, 1);
});

it('makes nothing without results', () => {
  expect(benchPages(join(folder, 'none'), folder)).toBeUndefined();
});
