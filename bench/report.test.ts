import { expect, it } from 'vitest';

import { missedGoals, tableOf, verdictOf, type BenchResult } from './report.ts';

const result: BenchResult = {
  name: 'x',
  short: false,
  input: {},
  fields: { speed: 1.5, memory: 170, peer: null, note: 3 },
  goals: { speed: { least: 1.6 }, memory: { most: 200 }, peer: { least: 2 } },
  absolute: {},
};

it('names the fields below what they must be, and only those', () => {
  expect(missedGoals(result)).toEqual(['speed']);
  expect(missedGoals({ ...result, fields: { speed: 1.6, memory: 201 } })).toEqual(['memory']);
  expect(verdictOf(Number.NaN, { least: 1 })).toBe('MISSED');
});

it('makes a table with a verdict for each goal', () => {
  const lines = tableOf(result).split('\n');
  expect(lines).toHaveLength(5);
  expect(lines[1]).toMatch(/^speed +1\.50 +≥ 1\.6 +MISSED$/);
  expect(lines[3]).toMatch(/^peer +- +≥ 2 +not measured$/);
  expect(lines[4]).toMatch(/^note +3\.00$/);
});
