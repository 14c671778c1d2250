import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { formatBytes, formatDuration, GIB, KIB, MIB, parseBytes, roundUp } from './units.ts';

describe('formatBytes', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [KIB, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [MIB - 1, '1.0 MiB'],
    [1.2 * GIB, '1.2 GiB'],
    [Number.MAX_SAFE_INTEGER, '8.0 PiB'],
  ])('writes %d as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe('formatDuration', () => {
  it.each([
    [0, '0 ms'],
    [850.4, '850 ms'],
    [12_345, '12.3 s'],
    [59_960, '1 min 00 s'],
    [185_000, '3 min 05 s'],
  ])('writes %d as %s', (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });
});

describe('parseBytes', () => {
  it.each([
    ['0', 0],
    ['512', 512],
    ['512B', 512],
    ['64K', 64 * KIB],
    ['10MiB', 10 * MIB],
    ['10 mb', 10 * MIB],
    ['1.5G', 1.5 * GIB],
  ])('reads %s', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it.each(['', 'K', '-1', '1e3', '0x10', '1 2', '1KK', '1PB', 'NaN', 'Infinity', '9999999999G', '.5G', '1.G'])(
    'refuses %j',
    (text) => {
      expect(() => parseBytes(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    },
  );

  it('reads whole numbers as they are', () => {
    fc.assert(fc.property(fc.maxSafeNat(), (bytes) => parseBytes(String(bytes)) === bytes));
  });
});

describe('roundUp', () => {
  it('gives the next multiple', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 40), fc.integer({ min: 1, max: 2 ** 20 }), (value, unit) => {
        const rounded = roundUp(value, unit);
        expect(rounded % unit).toBe(0);
        expect(rounded - value).toBeGreaterThanOrEqual(0);
        expect(rounded - value).toBeLessThan(unit);
      }),
    );
  });
});
