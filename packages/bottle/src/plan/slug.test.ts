import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { isSlug, slugBase, slugCandidate } from './slug.ts';

const anyText = (maxLength: number) =>
  fc
    .array(fc.oneof(fc.integer({ min: 0, max: 127 }), fc.integer({ min: 0, max: 0x10ffff })), { maxLength })
    .map((codes) => String.fromCodePoint(...codes));

describe('slugBase', () => {
  it.each([
    ['Code Reviewer', 'code-reviewer'],
    ['../../x', 'x'],
    ['a;rm -rf /', 'a-rm-rf'],
    ['--privileged', 'privileged'],
    ['$(id)', 'id'],
    ['-x-', 'x'],
    ['ｆｏｏ bar', 'bar'],
    ['раураl-x', 'l-x'],
    ['x'.repeat(200), 'x'.repeat(40)],
    [`${'x'.repeat(39)}--y`, 'x'.repeat(39)],
  ])('%j becomes %s', (name, slug) => {
    expect(slugBase(name)).toBe(slug);
  });

  it.each(['', '-', '---', '..', '日本', '\u200b', 'x'.repeat(300), 'a\0b', 'a\nb', 'a\tb', '\u007f'])(
    'refuses %j',
    (name) => {
      expect(() => slugBase(name)).toThrow(expect.objectContaining({ code: 'NAME_INVALID' }));
    },
  );

  it('whatever comes in, what comes out is a slug, as are its candidates', () => {
    fc.assert(
      fc.property(anyText(250), fc.integer({ min: 1, max: 100 }), (name, attempt) => {
        let base: string;
        try {
          base = slugBase(name);
        } catch (error) {
          expect(error).toMatchObject({ code: 'NAME_INVALID' });
          return;
        }
        const slug = slugCandidate(base, attempt);
        expect(isSlug(slug)).toBe(true);
        expect(slug).toMatch(/^[a-z0-9][a-z0-9-]{0,44}$/);
      }),
    );
  });
});

describe('isSlug', () => {
  it.each(['', '-a', 'a-', 'A', 'a/b', '..', 'a.b', 'a\n', 'a'.repeat(64), 'ａ'])('is not %j', (text) => {
    expect(isSlug(text)).toBe(false);
  });
});
