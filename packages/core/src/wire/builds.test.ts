import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { buildEndOf, cacheKeySchema, escapeLogLine, unescapeLogLine } from './builds.ts';

describe('lines of a build log', () => {
  const line = fc.oneof(
    fc.string().map((text) => text.replaceAll(/[\r\n]/g, '')),
    fc.constantFrom(
      '{"done":true}',
      '  {"error":"x"}',
      '{"a":{"done":1}}',
      '{',
      ' {"done',
      '{ "error" }',
      '{"done":false}',
    ),
  );

  it('survive escaping, and none of them is an end', () => {
    fc.assert(
      fc.property(line, (text) => {
        const sent = escapeLogLine(text);
        expect(unescapeLogLine(sent)).toBe(text);
        expect(buildEndOf(sent)).toBeUndefined();
        // What Together's clients take for control.
        expect(sent.startsWith('{') && (sent.includes('"done"') || sent.includes('"error"'))).toBe(false);
      }),
    );
  });

  it('end by control events', () => {
    expect(buildEndOf('{"done":true}')).toEqual({ done: true });
    expect(buildEndOf('{"error":"no"}')).toEqual({ error: 'no' });
    for (const text of ['{"done":false}', ' {"done":true}', '{"error":', 'done'])
      expect(buildEndOf(text)).toBeUndefined();
  });
});

describe('cache keys', () => {
  it('are lowercase paths', () => {
    for (const key of ['a', 'team/app-1', 'a.b_c/d', `a${'b'.repeat(254)}`])
      expect(cacheKeySchema.safeParse(key).success).toBe(true);
    for (const key of ['', 'A', 'a:b', '/a', 'a/', 'a//b', '../a', 'a/../b', 'a b', `a${'b'.repeat(255)}`]) {
      expect(cacheKeySchema.safeParse(key).success).toBe(false);
    }
  });
});
