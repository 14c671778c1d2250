import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  formatImageName,
  imageIdDigits,
  isStreamingImageId,
  parseChunkId,
  parseImageId,
  parseImageName,
  parseNamespace,
  quote,
} from './ids.ts';

const hex = 'a1'.repeat(32);

describe('image names', () => {
  it.each([
    ['app', 'app', 'latest'],
    ['app:v1', 'app', 'v1'],
    ['team/app', 'team/app', 'latest'],
    ['team/a.b_c__d-e--f:V1.0-x_y', 'team/a.b_c__d-e--f', 'V1.0-x_y'],
    ['0:_', '0', '_'],
  ])('reads %s', (text, name, tag) => {
    expect(parseImageName(text)).toEqual({ name, tag });
  });

  it.each([
    ...['', ':', 'app:', ':v1', 'App', 'a//b', '/a', 'a/', '-a', 'a-', 'a..b', 'a___b', 'a b', 'a:b:c', 'é', 'a\n'],
    ...['a:-x', 'a:.x', `a:${'x'.repeat(129)}`, 'x'.repeat(201), 'host:5000/app', '../a', 'a/../b', 'a:v/1'],
  ])('refuses %j', (text) => {
    expect(() => parseImageName(text)).toThrow(expect.objectContaining({ code: 'NAME_INVALID' }));
  });

  it('reads back what it writes', () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,8}(-[a-z0-9]{1,8})?$/);
    const tag = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/);
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), tag, (parts, tag) => {
        const name = { name: parts.join('/'), tag };
        expect(parseImageName(formatImageName(name))).toEqual(name);
      }),
    );
  });

  it('answers any text with a name or NAME_INVALID, in time that grows with its length', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 300, unit: 'binary-ascii' }), (text) => {
        try {
          const { name } = parseImageName(text);
          expect(name.length).toBeLessThanOrEqual(200);
        } catch (error) {
          expect(error).toMatchObject({ code: 'NAME_INVALID' });
        }
      }),
    );
    expect(() => parseImageName(`${'a-'.repeat(99)}!`)).toThrow();
  });
});

describe('ids', () => {
  it('reads image ids of both kinds', () => {
    expect(isStreamingImageId(parseImageId(`cas-v1:${hex}`))).toBe(true);
    expect(isStreamingImageId(parseImageId(`sha256:${hex}`))).toBe(false);
    expect(imageIdDigits(parseImageId(`cas-v1:${hex}`))).toBe(hex);
    expect(parseChunkId(hex)).toBe(hex);
  });

  it.each(['', hex, `cas-v2:${hex}`, `sha256:${hex.toUpperCase()}`, `cas-v1:${hex}0`, `cas-v1:${hex}\n`])(
    'refuses %j as an image id',
    (text) => {
      expect(() => parseImageId(text)).toThrow(expect.objectContaining({ code: 'ID_INVALID' }));
    },
  );

  it.each(['', hex.slice(1), `${hex}\n`, hex.toUpperCase(), `0x${hex.slice(2)}`])(
    'refuses %j as a chunk id',
    (text) => {
      expect(() => parseChunkId(text)).toThrow(expect.objectContaining({ code: 'ID_INVALID' }));
    },
  );
});

describe('namespaces', () => {
  it.each(['a', '0', 'team-1', 'a'.repeat(63)])('accepts %s', (text) => {
    expect(parseNamespace(text)).toBe(text);
  });

  it.each(['', '-', 'a-', '-a', 'A', 'a_b', 'a/b', '..', 'a'.repeat(64), 'a\n'])('refuses %j', (text) => {
    expect(() => parseNamespace(text)).toThrow(expect.objectContaining({ code: 'NAME_INVALID' }));
  });
});

describe('quote', () => {
  it('escapes control characters and cuts long text', () => {
    expect(quote('a\u001b[31m"')).toBe('"a\\u001b[31m\\""');
    expect(quote('x'.repeat(100))).toHaveLength(82);
  });
});
