import type { DecantError } from '@decant/core';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { Watchdog } from './watchdog.ts';

const LIMITS = { wallMs: 100_000, silenceMs: 10_000 };
let nowMs = 0;
let ends: DecantError[];
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  nowMs = 5000;
  ends = [];
});
afterEach(() => vi.useRealTimers());

const start = () => new Watchdog({ now: () => nowMs, tickMs: 500 }, LIMITS, (error) => ends.push(error));
const pass = (ms: number) => {
  nowMs += ms;
  vi.advanceTimersByTime(500);
};
const codes = () => ends.map(({ code, details }) => [code, details['limitMs']]);

it('ends what writes nothing for longer than it may', () => {
  using watchdog = start();
  pass(10_000);
  watchdog.heard();
  pass(10_000);
  expect(codes()).toEqual([]);
  pass(1);
  expect(codes()).toEqual([['BUILD_SILENT', 10_000]]);
});

it('ends what runs for longer than it may, however much it writes', () => {
  using watchdog = start();
  for (let i = 0; i < 10; i++) {
    pass(10_000);
    watchdog.heard();
  }
  expect(codes()).toEqual([]);
  pass(1);
  expect(codes()).toEqual([['BUILD_WALL_TIME', 100_000]]);
});

it('looks at nothing once it is over, and holds no program back', () => {
  {
    using watchdog = start();
    watchdog.heard();
    expect(vi.getTimerCount()).toBe(1);
  }
  expect(vi.getTimerCount()).toBe(0);
  pass(1e9);
  expect(ends).toEqual([]);
});
