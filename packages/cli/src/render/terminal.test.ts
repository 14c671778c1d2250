import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { printable, screenOf, tableLines } from './terminal.ts';

describe('printable', () => {
  test.each([
    ['\u001B[2J\u001B]0;title\u0007gone', 'gone'],
    ['a\rb', 'a�b'],
    ['a\nb', 'a�b'],
    ['a\tb', 'a  b'],
    ['\u009B31mred', 'red'],
    ['user\u202Etxt.exe', 'user�txt.exe'],
    ['Olá 日本 🚀', 'Olá 日本 🚀'],
  ])('%j becomes %j', (text, shown) => {
    expect(printable(text)).toBe(shown);
  });

  test('leaves no control character of whatever it is given', () => {
    const character = fc.integer({ min: 0, max: 0x20ff }).map((code) => String.fromCharCode(code));
    const anything = fc.string({ unit: fc.oneof(character, fc.constantFrom('\u001B', '[', '\u009B', ';', 'm')) });
    fc.assert(
      fc.property(anything, (text) => {
        expect(printable(text)).not.toMatch(/\p{Cc}/u);
      }),
    );
  });
});

describe('tableLines', () => {
  test('columns are as wide as their widest cell, and the last one has no padding', () => {
    const rows = [
      ['日本', 'x'],
      ['longer name', ''],
    ];
    expect(tableLines(['NAME', 'B'], rows)).toEqual(['NAME         B', '日本         x', 'longer name']);
  });

  test('cells cannot break out of their line', () => {
    expect(tableLines(['A'], [['one\ntwo\u001B[1A']])).toEqual(['A', 'one�two']);
  });
});

describe('colours', () => {
  const stream = (isTTY: boolean) => ({ isTTY, columns: 80, write: () => true });
  const red = (isTTY: boolean, env: Record<string, string>) => screenOf(stream(isTTY), env).style.red('x');

  test('only on a terminal that understands them, and not when they are not wanted', () => {
    expect(red(true, {})).toBe('\u001B[31mx\u001B[0m');
    expect(red(true, { NO_COLOR: '' })).toBe('\u001B[31mx\u001B[0m');
    expect(red(true, { NO_COLOR: '1' })).toBe('x');
    expect(red(true, { TERM: 'dumb' })).toBe('x');
    expect(red(false, {})).toBe('x');
  });
});
