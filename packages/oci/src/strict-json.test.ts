import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { jsonFault } from './strict-json.ts';

describe('jsonFault', () => {
  it('finds nothing in what programs write', () => {
    const value = fc.jsonValue({ maxDepth: 4 });
    fc.assert(
      fc.property(value, fc.constantFrom(0, 1, 4), (json, indent) => {
        // __proto__ is a member like any other in JSON text.
        expect(jsonFault(JSON.stringify(json, undefined, indent) ?? 'null')).toBeUndefined();
      }),
    );
  });

  it.each([
    ['{"a":1,"a":1}', 7],
    ['{"a":1,"\\u0061":2}', 7],
    ['[{},{"x":{"b":[{"c":1}],"d":2,"b":3}}]', 30],
    ['{"a":{"a":{"a":1}},"b":{"":1,"":2}}', 29],
    ['{"a":"}\\"{","a":1}', 12],
    ['{ "__proto__" : 1 , "__proto__" : 2 }', 20],
  ])('finds the second member in %s', (text, offset) => {
    expect(() => JSON.parse(text) as unknown).not.toThrow();
    expect(jsonFault(text)).toMatchObject({ what: expect.stringContaining('twice') as string, offset });
  });

  it('is not misled by names in other objects, by strings or by values', () => {
    for (const text of [
      '[{"a":1},{"a":1}]',
      '{"a":"a","b":"a"}',
      '{"a":["a","a"]}',
      '{"a":"\\\\","b":"\\",\\"a\\":"}',
    ]) {
      expect(jsonFault(text), text).toBeUndefined();
    }
  });

  it('bounds the nesting, not the number of members', () => {
    expect(jsonFault('['.repeat(64) + ']'.repeat(64))).toBeUndefined();
    expect(jsonFault('['.repeat(65) + ']'.repeat(65))).toMatchObject({ offset: 64 });
    const many = `{${Array.from({ length: 200_000 }, (_, i) => `"${i}":[{}]`).join(',')}}`;
    expect(jsonFault(many)).toBeUndefined();
  });
});
