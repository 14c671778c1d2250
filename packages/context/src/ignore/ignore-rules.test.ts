import { isDecantError } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { parseIgnoreFile } from './ignore-rules.ts';

const rulesOf = (text: string | Uint8Array) =>
  parseIgnoreFile(typeof text === 'string' ? Buffer.from(text) : text, '.dockerignore');

function failureOf(text: string | Uint8Array): unknown {
  try {
    rulesOf(text);
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('reading an ignore file', () => {
  it.each([
    ['a\r\nb\r\n', ['a', 'b']],
    ['\uFEFFa\n\uFEFFb\n', ['a', '\uFEFFb']],
    ['#a\n #b\n\t\n', ['#b']],
    ['\u00a0\u3000a\u2003\u0085\n', ['a']],
    ['a//b/./c/../d/\n', ['a/b/d']],
    ['/a\n//b\n/\n!/c\n', ['a', 'b', '/', '!c']],
    ['./\n..\n../x\na/..\n/../y\n', ['.', '..', '../x', '.', 'y']],
    ['! a \n!!b\n!./c\n', ['!a', '!!b', '!c']],
    ['/ a\n', ['a']],
    ['last line without an end', ['last line without an end']],
  ])('%j gives %j', (text, patterns) => {
    expect(rulesOf(text).patterns).toEqual(patterns);
  });

  it('takes a line of 65,535 bytes and no longer one, as bytes and not as characters', () => {
    expect(rulesOf(`${'x'.repeat(65_535)}\n`).patterns[0]).toHaveLength(65_535);
    expect(rulesOf('ü'.repeat(32_767)).patterns).toHaveLength(1);
    expect(isDecantError(failureOf(`a\n${'x'.repeat(65_536)}\n`), 'IGNORE_FILE_INVALID')).toBe(true);
    expect(isDecantError(failureOf(`a\n${'ü'.repeat(32_768)}`), 'IGNORE_FILE_INVALID')).toBe(true);
    // The carriage return and the byte order mark are part of the line.
    expect(isDecantError(failureOf(`${'x'.repeat(65_535)}\r\n`), 'IGNORE_FILE_INVALID')).toBe(true);
  });

  it('is of 4 MiB at the most', () => {
    expect(rulesOf(`${'#'.repeat(50_000)}\n`.repeat(83)).patterns).toEqual([]);
    expect(isDecantError(failureOf('\n'.repeat(4 * 1024 * 1024 + 1)), 'IGNORE_FILE_INVALID')).toBe(true);
  });

  it.each([
    ['a\n\n!\n', 3],
    ['!/\n', 1],
    ['#\na[b\n', 2],
    ['[]a]\n', 1],
    ['[-a]\n', 1],
    ['[a-]\n', 1],
    ['x[\n', 1],
    ['a\\\n', 1],
    ['.*[\n', 1],
    ['[z-a]\n', 1],
    ['*\\y\n', 1],
    ['\\1x\n', 1],
    ['[[:nope:]]\n', 1],
    ['a*{2}\n', 1],
    ['?{1001}\n', 1],
    ['?{1000}'.repeat(60), 1],
  ])('refuses %j and names line %i', (text, line) => {
    const failure = failureOf(text);
    expect(isDecantError(failure, 'IGNORE_FILE_INVALID')).toBe(true);
    expect(failure).toMatchObject({ details: { file: '.dockerignore', line } });
    expect(String(failure)).toContain(`.dockerignore, line ${line}`);
  });
});

describe('matching', () => {
  // Each was observed with a docker client of Moby's current matcher.
  it.each([
    ['a*[?]', 'axb', false],
    // A backslash at the end escapes the end of the expression: a dollar sign somewhere is meant.
    ['x*\\', 'x$y', true],
    ['x*\\', 'xy', false],
    ['***', 'any/thing', true],
    ['**/foo', 'foo', true],
    ['**/foo', 'xfoo', false],
    ['**foo', 'a/xfoo', true],
    ['**foo*', 'xfoo', false],
    ['a**', 'abc/d', true],
    ['a/**', 'a', false],
    ['a/**/b', 'a/b', true],
    ['a/**b', 'a/xb', false],
    ['[^a]b', '/b', true],
    ['[!a]b', 'ab', true],
    ['[\\]]', ']', true],
    ['[a\\-z]', '-', true],
    ['[a\\-z]', 'm', false],
    ['\\*', '*', true],
    ['\\*', 'a', false],
    // An escaped letter is an escape of the expression, and braces and bars are its operators next to a wildcard.
    ['\\d', '7', true],
    ['\\foo', 'foo', false],
    ['\\x41', 'A', true],
    ['[[:alpha:]]?', 'ab', true],
    ['x{2}*', 'xxy', true],
    ['{a,b}*', '{a,b}c', true],
    ['a|b*', 'zb', true],
    ['a|b', 'a', false],
    ['a|b', 'a|b', true],
    ['^*', 'anything', true],
    ['$*', '$x', true],
    ['?', 'ü', true],
    ['??', 'ü', false],
    ['?', '💧', true],
    ['a?b', 'a/b', false],
    ['a?b', 'a\nb', true],
    ['**/b', 'a\nc/b', true],
  ])('%s on %j: excluded is %s', (pattern, path, excluded) => {
    expect(rulesOf(pattern).excludes(path)).toBe(excluded);
  });

  it('takes names as bytes', () => {
    const latin1 = Uint8Array.of(0x61, 0xff);
    expect(rulesOf(Uint8Array.of(0x61, 0xff, 0x0a)).excludes(latin1)).toBe(true);
    expect(rulesOf('a\uFFFD').excludes(latin1)).toBe(false);
    expect(rulesOf('a?').excludes(latin1)).toBe(true);
    // Three bytes of a cut sequence are three characters.
    expect(rulesOf('???').excludes(Uint8Array.of(0xf0, 0x9f, 0x92))).toBe(true);
    expect(rulesOf('?').excludes(Uint8Array.of(0xf0, 0x9f, 0x92))).toBe(false);
  });

  it('decides about directories: keep, skip, or descend where an exception could apply', () => {
    const action = (text: string, path: string) => rulesOf(text).root.decide(path, true).action;
    expect(action('a', 'b')).toBe('keep');
    expect(action('a', 'a')).toBe('skip');
    expect(action('a\n!b/c', 'a')).toBe('skip');
    expect(action('a\n!ab/c', 'a')).toBe('skip');
    expect(action('a\n!a/b', 'a')).toBe('descend');
    expect(action('a\n!a/b/**', 'a')).toBe('descend');
    expect(action('a\n!a', 'a')).toBe('keep');
    expect(action('*\n!b/**', 'a')).toBe('skip');
    expect(action('*\n!*/b', 'a')).toBe('descend');
    expect(action('*\n!\\b', 'a')).toBe('descend');
  });

  it('counts an exception that could not matter for the parent as not matched below it either', () => {
    // `!docs` is not tried on `docs`, which nothing excluded, so it does not save what is in it.
    expect(rulesOf('**/*.md\n!docs').excludes('docs/a.md')).toBe(true);
    expect(rulesOf('docs\n**/*.md\n!docs').excludes('docs/a.md')).toBe(false);
  });

  it('stays fast on patterns made to make a backtracking matcher slow', () => {
    const rules = rulesOf(`${'**/'.repeat(30)}${'*a'.repeat(30)}b\n${'*?'.repeat(200)}x\n`);
    const started = performance.now();
    expect(rules.excludes(`${'a'.repeat(200)}/${'a'.repeat(200)}`)).toBe(false);
    expect(performance.now() - started).toBeLessThan(20_000);
  });

  it('agrees with a plain recursive matcher on *, ?, ** and literals', () => {
    const name = fc.string({ unit: fc.constantFrom('a', 'b', 'ü', '.', '+'), minLength: 1, maxLength: 4 });
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
    const part = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.string({ unit: fc.constantFrom('a', 'b', 'ü', '.', '+', '*', '?'), minLength: 1, maxLength: 4 }),
      },
      { weight: 1, arbitrary: fc.constant('**') },
    );
    const pattern = fc
      .array(part, { minLength: 1, maxLength: 3 })
      .map((parts) => parts.join('/'))
      .filter(
        (text) => !/[^/]\*\*|\*\*[^/]/.test(text) && !text.split('/').some((piece) => piece === '.' || piece === '..'),
      );
    fc.assert(
      fc.property(pattern, path, (text, tested) => {
        fc.pre(!tested.split('/').some((piece) => piece === '.' || piece === '..'));
        const parts = tested.split('/');
        const expected = parts.some((_, index) => plainMatch(text.split('/'), parts.slice(0, index + 1)));
        expect(rulesOf(text).excludes(tested)).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });
});

/** `**` is any number of names, in the last place at least one. */
function plainMatch(pattern: readonly string[], names: readonly string[]): boolean {
  const [first, ...rest] = pattern;
  if (first === undefined) return names.length === 0;
  if (first === '**') {
    if (rest.length === 0) return names.length > 0;
    return names.some((_, index) => plainMatch(rest, names.slice(index))) || plainMatch(rest, []);
  }
  return names.length > 0 && plainName(Array.from(first), Array.from(names[0]!)) && plainMatch(rest, names.slice(1));
}

function plainName(pattern: readonly string[], name: readonly string[]): boolean {
  if (pattern.length === 0) return name.length === 0;
  if (pattern[0] === '*')
    return plainName(pattern.slice(1), name) || (name.length > 0 && plainName(pattern, name.slice(1)));
  return (
    name.length > 0 && (pattern[0] === '?' || pattern[0] === name[0]) && plainName(pattern.slice(1), name.slice(1))
  );
}
