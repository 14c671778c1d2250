import fc from 'fast-check';
import { expect, test } from 'vitest';

import { cutText, textWidth } from './text-width.ts';

test.each([
  ['', 0],
  ['plain', 5],
  ['· läuft', 7],
  ['日本', 4],
  ['e\u0301', 1],
  ['🚀', 2],
])('%j takes %d columns', (text, width) => {
  expect(textWidth(text)).toBe(width);
});

test('a line is cut only when it is too long, and says so', () => {
  expect(cutText('twelve chars', 12)).toBe('twelve chars');
  expect(cutText('twelve chars', 11)).toBe('twelve cha…');
  expect(cutText('日本語', 4)).toBe('日…');
  expect(cutText('x', 0)).toBe('');
});

test('what is cut fits', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom('a', 'ä', '日', '🚀', 'e\u0301', '…', ' ') }),
      fc.integer({ min: 0, max: 40 }),
      (text, columns) => {
        expect(textWidth(cutText(text, columns))).toBeLessThanOrEqual(columns);
      },
    ),
  );
});
