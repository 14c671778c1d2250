import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { parseHostPattern, patternMatches } from './host-pattern.ts';
import { canonicalHost } from './host.ts';

const textOf = (text: string) => {
  const host = canonicalHost(text);
  return host.type === 'refused' ? undefined : host.text;
};
const label63 = 'a'.repeat(63);
const name253 = [label63, label63, label63, 'b'.repeat(61)].join('.');

describe('a host', () => {
  it.each([
    ['EXAMPLE.com', 'example.com'],
    ['example.com.', 'example.com'],
    ['a-b.c1', 'a-b.c1'],
    ['localhost.', 'localhost'],
    ['bücher.example', 'xn--bcher-kva.example'],
    ['BÜCHER.example', 'xn--bcher-kva.example'],
    ['xn--bcher-kva.example', 'xn--bcher-kva.example'],
    ['XN--BCHER-KVA.example', 'xn--bcher-kva.example'],
    ['127.0.0.1.nip.io', '127.0.0.1.nip.io'],
    ['203.0.113.9', '203.0.113.9'],
    ['[2001:DB8::1]', '2001:db8::1'],
    ['2001:db8:0:0::1', '2001:db8::1'],
    [`${name253}.`, name253],
  ])('%j has the form %j', (text, form) => expect(textOf(text)).toBe(form));

  it.each([
    ...[
      '',
      '.',
      '..',
      'a..b',
      '.a',
      'a.b..',
      '-a.b',
      'a-.b',
      'a_b.c',
      'a b',
      ' a',
      'a ',
      'a\0.allowed.test',
      'evil.test\0allowed.test',
    ],
    ...[
      'a\r\nb',
      'a\tb',
      'a%00b',
      'a%2eb',
      'user@a.test',
      'a.test@b',
      'a#b',
      'a/b',
      'a\\b',
      'a?b',
      'a:80',
      '*.a.test',
      'a,b',
      "a'b",
    ],
    ...[
      '127.1',
      '2130706433',
      '0x7f000001',
      '0177.0.0.1',
      '0',
      '1.2.3.4.',
      '1.2.3.256',
      '01.2.3.4',
      '1.2.3.4.5',
      'a.1',
      'a.0x',
    ],
    ...['[::1', '::1]', '[]', '[1.2.3.4]', 'fe80::1%eth0', '[fe80::1%25eth0]', '::1::', '[::1].', '::ffff:1.2.3'],
    ...[
      'ｅxample.com',
      'exa­mple.com',
      'example。com',
      'example．com',
      'ﬁ.test',
      '①.test',
      'ⅷ.test',
      '\u212A.test',
      'a\u200d.test',
      '\ufeffa.test',
    ],
    ...[
      `${label63}a.test`,
      `${name253}c`,
      'é'.repeat(64),
      'a'.repeat(3000),
      '\ud800.test',
      'xn--ls8h=.test',
      'xn--.test',
      '１２７.0.0.1',
    ],
  ])('%j is refused', (text) => expect(textOf(text)).toBeUndefined());

  it('stays what it is', () => {
    const anything = fc.oneof(
      fc.domain(),
      fc.string({ unit: 'grapheme', maxLength: 20 }),
      fc.string({ unit: fc.constantFrom(...Array.from('aZ09-._%@:[]üß')), maxLength: 24 }),
    );
    fc.assert(
      fc.property(anything, (text) => {
        const form = textOf(text);
        if (form === undefined) return;
        expect(textOf(form)).toBe(form);
        expect(form).toMatch(/^[0-9a-z.:-]{1,253}$/);
      }),
      { numRuns: 1000 },
    );
  });

  it('is what a URL with that host would connect to, or is refused', () => {
    const parts = fc.constantFrom(
      '0',
      '1',
      '127',
      '255',
      '256',
      '0x7f',
      '0177',
      '0x',
      '08',
      'a',
      'com',
      'ü',
      'ß',
      'xn--bcher-kva',
      'Ａ',
      '%41',
      '',
      '::1',
      '[',
      ']',
    );
    fc.assert(
      fc.property(fc.array(parts, { minLength: 1, maxLength: 6 }), fc.constantFrom('.', ':', '。'), (pieces, dot) => {
        const text = pieces.join(dot);
        const form = textOf(text);
        if (form === undefined) return;
        const url = URL.parse(`http://${text.includes(':') && !text.startsWith('[') ? `[${text}]` : text}/`);
        expect(url, text).not.toBeNull();
        const seen = textOf(url!.hostname);
        expect(seen ?? 'refused', text).toBe(form);
      }),
      { numRuns: 1000 },
    );
  });
});

describe('a host pattern', () => {
  const matches = (pattern: string, host: string) => {
    const [read, canonical] = [parseHostPattern(pattern), canonicalHost(host)];
    return read !== undefined && canonical.type !== 'refused' && patternMatches(read, canonical);
  };

  it.each([
    ['example.com', 'EXAMPLE.COM.', true],
    ['example.com', 'a.example.com', false],
    ['*.example.com', 'a.example.com', true],
    ['*.example.com', 'a.b.example.com', true],
    ['*.example.com', 'example.com', false],
    ['*.example.com', 'notexample.com', false],
    ['*.example.com', 'example.com.evil.test', false],
    ['*.bücher.test', 'a.xn--bcher-kva.test', true],
    ['203.0.113.9', '203.0.113.9', true],
    ['2001:db8::1', '[2001:DB8:0::1]', true],
    ['203.0.113.9', '::ffff:203.0.113.9', true],
  ])('%s and %s: %s', (pattern, host, expected) => expect(matches(pattern, host)).toBe(expected));

  it.each([
    '*',
    '*.',
    'a.*.b',
    '*a.test',
    '**.test',
    '*.203.0.113.9',
    '*.::1',
    '',
    'a b',
    '*.*.test',
    'http://a.test',
    'a.test:443',
    'a.test/',
  ])('%j is none', (pattern) => expect(parseHostPattern(pattern)).toBeUndefined());
});
