import { expect, test } from 'vitest';

import { graceOf } from './registry-collect.ts';

test.each([
  [undefined, undefined],
  ['0', 0],
  ['86400', 86_400],
])('a grace period of %j', (text, seconds) => {
  expect(graceOf(text)).toBe(seconds);
});

test.each(['', '-1', '1.5', '1d', '1e3', ' 1', '9999999999'])('%j is none', (text) => {
  expect(() => graceOf(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
});
