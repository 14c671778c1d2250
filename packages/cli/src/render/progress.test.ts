import { stripVTControlCharacters } from 'node:util';

import type { ProgressEvent } from '@decant/core';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { rememberingScreen } from '../screen.fixture.ts';
import { createProgress, type ProgressOptions } from './progress.ts';

const MIB = 1024 * 1024;
const BUILD: readonly ProgressEvent[] = [
  { type: 'stage-started', stage: 'build' },
  { type: 'log', stage: 'build', stream: 'stdout', line: '10%\r\u001B[32m100%\u001B[0m\r' },
  { type: 'warning', stage: 'build', message: 'Old base.', hint: 'Pull it.' },
  { type: 'stage-finished', stage: 'build', message: 'sha256:12', items: 1234, bytes: 3 * MIB, elapsedMs: 1500 },
];

function show(events: readonly ProgressEvent[], columns?: number, options: ProgressOptions = {}): string {
  const screen = rememberingScreen(columns);
  const progress = createProgress('auto', { screen, ...options });
  for (const event of events) progress.onEvent(event);
  progress.end();
  return screen.written();
}

/** What a terminal shows in the end of text with carriage returns and cleared lines, without colours. */
function settled(text: string): string[] {
  const lines = text.split('\n').map((line) => stripVTControlCharacters(line.split('\r\u001B[2K').at(-1)!));
  return lines.at(-1) === '' ? lines.slice(0, -1) : lines;
}

const LASTING = ['  │ 100%', '! Old base. Pull it.', '✓ building: sha256:12, 1,234 items, 3.0 MiB, 2.0 MiB/s, 1.5 s'];

test('plain lines when nobody can redraw', () => {
  expect(show(BUILD)).toBe(`${['· building …', ...LASTING].join('\n')}\n`);
});

test('on a terminal what is over stays, what runs does not', () => {
  const written = show(BUILD, 100);
  expect(written).toContain('· building …');
  expect(settled(written)).toEqual(LASTING);
});

test('events as they are, one a line', () => {
  const screen = rememberingScreen();
  const progress = createProgress('json', { screen });
  for (const event of BUILD) progress.onEvent(event);
  expect(
    screen
      .written()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown),
  ).toEqual(BUILD);
});

test('nothing, and for a program that has the terminal nothing that stays but warnings', () => {
  const silent = rememberingScreen(80);
  createProgress('none', { screen: silent }).onEvent(BUILD[0]!);
  expect(silent.written()).toBe('');
  expect(show(BUILD, undefined, { transient: true })).toBe('! Old base. Pull it.\n');
  expect(settled(show(BUILD, 80, { transient: true }))).toEqual(['! Old base. Pull it.']);
});

describe('as time passes', () => {
  let clock = 0;
  const now = () => clock;
  beforeEach(() => {
    clock = 0;
    vi.useFakeTimers();
  });
  afterEach(() => void vi.useRealTimers());
  const pass = (milliseconds: number) => {
    clock += milliseconds;
    vi.advanceTimersByTime(milliseconds);
  };
  const upload = (bytes: number): ProgressEvent => ({
    type: 'stage-progress',
    stage: 'upload',
    bytes,
    totalBytes: 100 * MIB,
    items: 2000,
  });

  test('counts, rate and time left', () => {
    const screen = rememberingScreen(120);
    const { onEvent } = createProgress('auto', { screen, now });
    onEvent({ type: 'stage-started', stage: 'upload', totalBytes: 100 * MIB });
    pass(10_000);
    // The whole need not be told again.
    onEvent({ type: 'stage-progress', stage: 'upload', bytes: 25 * MIB, items: 2000 });
    vi.advanceTimersByTime(200);
    const last = settled(screen.written()).at(-1);
    expect(last).toBe('· uploading what is new: 2,000 items, 25.0 MiB of 100.0 MiB, 2.5 MiB/s, 30.0 s left');
  });

  test('a stage that reports nothing shows that it is alive, and every line fits', () => {
    const screen = rememberingScreen(20);
    const { onEvent, end } = createProgress('auto', { screen, now });
    onEvent({ type: 'stage-started', stage: 'build', message: 'something with a long name' });
    expect(settled(screen.written())).toEqual(['· building: someth…']);
    end();
    const wide = rememberingScreen(80);
    const second = createProgress('auto', { screen: wide, now });
    second.onEvent({ type: 'stage-started', stage: 'build' });
    pass(3200);
    expect(settled(wide.written())).toEqual(['· building: 3.0 s']);
    second.end();
    const before = wide.written();
    pass(5000);
    expect(wide.written()).toBe(before);
  });

  test('plain lines about a long stage come now and then', () => {
    const screen = rememberingScreen();
    const { onEvent } = createProgress('auto', { screen, now });
    onEvent({ type: 'stage-started', stage: 'upload' });
    for (let second = 1; second <= 25; second++) {
      pass(1000);
      onEvent(upload(second * MIB));
    }
    expect(settled(screen.written()).map((line) => line.replace(/:.*items, /, ': '))).toEqual([
      '· uploading what is new …',
      '· uploading what is new: 10.0 MiB of 100.0 MiB, 1.0 MiB/s, 1 min 30 s left',
      '· uploading what is new: 20.0 MiB of 100.0 MiB, 1.0 MiB/s, 1 min 20 s left',
    ]);
  });
});
