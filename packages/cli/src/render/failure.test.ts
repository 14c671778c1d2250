import { DecantError, type ErrorCode } from '@decant/core';
import { expect, test } from 'vitest';

import { rememberingScreen } from '../screen.fixture.ts';
import { Interrupted, reportFailure } from './failure.ts';

function report(thrown: unknown, options: { json?: boolean; debug?: boolean } = {}) {
  const screen = rememberingScreen();
  const status = reportFailure(thrown, { json: false, debug: false, ...options }, screen);
  return { status, text: screen.written() };
}

const failed = new DecantError('BUILD_STEP_FAILED', 'Step 2 ended with status 3.', {
  hint: 'Mend the command.',
  details: { lastLines: 'one\n\u001B[2Jtwo', apiKey: 'dk_very-secret' },
});

test('message, code, the last lines of the program, hint', () => {
  expect(report(failed)).toEqual({
    status: 5,
    text: 'error: Step 2 ended with status 3. [BUILD_STEP_FAILED]\n  │ one\n  │ two\n  Mend the command.\n',
  });
});

test('one JSON document on one line, with secrets masked', () => {
  const { status, text } = report(failed, { json: true });
  expect(status).toBe(5);
  expect(text).toMatch(/^[^\n]+\n$/);
  expect(JSON.parse(text)).toEqual({
    type: 'error',
    error: {
      code: 'BUILD_STEP_FAILED',
      message: 'Step 2 ended with status 3.',
      hint: 'Mend the command.',
      details: { lastLines: 'one\n\u001B[2Jtwo', apiKey: 'dk_v…' },
    },
  });
});

test.each<[ErrorCode, number]>([
  ['USAGE', 2],
  ['UNAUTHORIZED', 3],
  ['NOT_FOUND', 4],
  ['BUILD_FAILED', 5],
  ['CAS_CHUNK_MISMATCH', 6],
  ['BUILD_ENGINE_MISSING', 7],
  ['INTERNAL', 1],
])('%s ends with %d', (code, status) => {
  expect(report(new DecantError(code, 'So it is.')).status).toBe(status);
});

test('an interrupt is no error; what is not one of our errors is a bug, and a full disk is not', () => {
  expect(report(new Interrupted('interrupted'))).toEqual({ status: 130, text: 'interrupted\n' });
  expect(report('a string').text).toBe('error: a string [INTERNAL]\n');
  const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  expect(report(full)).toMatchObject({ status: 7, text: expect.stringContaining('[DISK_FULL]') as string });
});

test('stacks only when asked for, with those of the causes', () => {
  const error = new DecantError('INTERNAL', 'Outer.', { cause: new TypeError('inner') });
  expect(report(error).text).not.toContain('failure.test.ts');
  const { text } = report(error, { debug: true });
  expect(text).toContain('failure.test.ts');
  expect(text).toContain('TypeError: inner');
});

test('what a message and a hint hold cannot draw on the terminal; what a program said is not said twice', () => {
  const hostile = new DecantError('USAGE', 'one\u001B[2J\ntwo\u0007', { hint: 'three\u001B]0;x\u0007\nfour' });
  expect(report(hostile).text).toBe('error: one\n  two\uFFFD [USAGE]\n  three\n  four\n');
  const repeated = new DecantError('BUILD_FAILED', 'It ended:\nlast\nwords', {
    details: { lastLines: 'last\nwords\n' },
  });
  expect(report(repeated).text).toBe('error: It ended:\n  last\n  words [BUILD_FAILED]\n');
});
