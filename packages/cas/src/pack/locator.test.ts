import type { DecantError, ImageId } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { viewOf, writeU64 } from '../bytes/bytes-reader.ts';
import { encodeLocator, parseLocator, type LocatorLimits, type LocatorRecord } from './locator.ts';
import { flipBit } from '../test-data.ts';

const IMAGE = `cas-v1:${'ab'.repeat(32)}` as ImageId;
const records: (LocatorRecord | null)[] = [
  { pack: 0, offset: 48, storedBytes: 8192, plainBytes: 8192, encoding: 'raw' },
  null,
  { pack: 1, offset: 4000, storedBytes: 100, plainBytes: 4096, encoding: 'zstd' },
];
const packs = [{ key: 'ns/a/packs/00/x' }, { key: 'ns/é/packs/01/y', nonce: new Uint8Array(32).fill(5) }];
const sample = encodeLocator({ imageId: IMAGE, packs, records });
const firstPack = 56;
const secondPack = firstPack + 2 + 15 + 32;
const firstRecord = secondPack + 2 + 16 + 32;

function refusal(bytes: Uint8Array, limits?: LocatorLimits): DecantError {
  try {
    parseLocator(bytes, limits);
  } catch (error) {
    return error as DecantError;
  }
  throw new Error('it was accepted');
}

describe('a locator', () => {
  it('comes back as it was written', () => {
    const key = fc.array(fc.stringMatching(/^[a-z0-9éß_-]{1,20}$/), { minLength: 1, maxLength: 4 });
    const nonce = fc.uint8Array({ minLength: 32, maxLength: 32 });
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.record({ key: key.map((parts) => parts.join('/')), nonce }), {
          selector: (pack) => pack.key,
          minLength: 1,
          maxLength: 5,
        }),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 1024 }), fc.nat(), fc.nat(2)), { maxLength: 30 }),
        (packs, plan) => {
          const records = plan.map(([pack, pages, size, kind]): LocatorRecord | null => {
            const plainBytes = pages * 4096;
            const at = { pack: pack % packs.length, offset: 48 + (size % 10_000_000), plainBytes };
            if (kind === 0) return null;
            if (kind === 1) return { ...at, storedBytes: plainBytes, encoding: 'raw' };
            return { ...at, storedBytes: 1 + (size % (plainBytes - 1)), encoding: 'zstd' };
          });
          const locator = parseLocator(encodeLocator({ imageId: IMAGE, packs, records }));
          expect(locator.imageId).toBe(IMAGE);
          expect(locator.packs).toEqual(packs);
          expect(Array.from({ length: locator.recordCount }, (_, i) => locator.record(i))).toEqual(records);
          expect(() => locator.record(records.length)).toThrow(RangeError);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('is refused when its parts break the format', () => {
    const good = records[0]!;
    const broken: Parameters<typeof encodeLocator>[0][] = [
      { imageId: `sha256:${'ab'.repeat(32)}` as ImageId, packs, records },
      { imageId: IMAGE, packs: [{ key: 'x'.repeat(1025) }], records: [] },
      { imageId: IMAGE, packs: [{ key: '' }], records: [] },
      { imageId: IMAGE, packs: [{ key: 'a', nonce: new Uint8Array(31) }], records: [] },
      { imageId: IMAGE, packs, records: [{ ...good, pack: 2 }] },
      { imageId: IMAGE, packs, records: [{ ...good, storedBytes: 1 }] },
    ];
    for (const parts of broken) expect(() => encodeLocator(parts)).toThrow(/locator is not valid/);
  });
});

describe('parseLocator', () => {
  const cases: [string, number, (bytes: Uint8Array, view: DataView) => void, RegExp][] = [
    ['magic', 7, (bytes) => (bytes[7] = 0), /DCNTLOC1/],
    ['version', 8, (_, view) => view.setUint32(8, 2, true), /version/],
    ['number of packs', 12, (_, view) => view.setUint32(12, 65_537, true), /packs/],
    ['number of records', 16, (_, view) => writeU64(view, 16, 2 ** 40), /more records/],
    ['number of records', firstRecord, (_, view) => writeU64(view, 16, 2), /records follow/],
    ['key length of zero', firstPack, (_, view) => view.setUint16(firstPack, 0, true), /0 bytes/],
    ['key length', firstPack, (_, view) => view.setUint16(firstPack, 1025, true), /1025 bytes/],
    ['key length beyond the end', sample.length, (_, view) => view.setUint16(secondPack, 1000, true), /ends inside/],
    ['key that is not UTF-8', firstPack + 2, (bytes) => (bytes[firstPack + 4] = 0xff), /UTF-8/],
    ['key with an empty part', firstPack + 2, (bytes) => (bytes[firstPack + 2] = 0x2f), /component/],
    ['pack number', firstRecord, (_, view) => view.setUint32(firstRecord, 2, true), /pack 2 of 2/],
    ['offset in the head', firstRecord + 4, (_, view) => writeU64(view, firstRecord + 4, 47), /outside/],
    ['offset beyond a pack', firstRecord + 4, (_, view) => writeU64(view, firstRecord + 4, 2 ** 26 - 1), /outside/],
    ['offset beyond numbers', firstRecord + 4, (_, view) => view.setUint32(firstRecord + 8, -1, true), /outside/],
    ['stored length', firstRecord + 12, (_, view) => view.setUint32(firstRecord + 12, 4096, true), /stored in 4096/],
    ['plain length', firstRecord + 12, (_, view) => view.setUint32(firstRecord + 16, 0, true), /plain bytes/],
    ['encoding', firstRecord + 20, (bytes) => (bytes[firstRecord + 20] = 2), /encoding/],
    ['padding', firstRecord + 23, (bytes) => (bytes[firstRecord + 23] = 1), /reserved/],
    ['hole that is not zeros', firstRecord + 36, (bytes) => (bytes[firstRecord + 28] = 1), /plain bytes/],
  ];
  it.each(cases)('refuses a wrong %s at byte %i', (_, offset, change, message) => {
    const bytes = sample.slice();
    change(bytes, viewOf(bytes));
    const error = refusal(bytes);
    expect(error).toMatchObject({ code: 'CAS_LOCATOR_INVALID', details: { offset } });
    expect(error.message).toMatch(message);
  });

  it('refuses a pack that is listed twice, truncations, trailing bytes and what is over the limits', () => {
    expect(() => encodeLocator({ imageId: IMAGE, packs: [{ key: 'a' }, { key: 'a' }], records: [] })).toThrow(/twice/);
    for (let length = 0; length < sample.length; length++) {
      expect(refusal(sample.subarray(0, length)).code).toBe('CAS_LOCATOR_INVALID');
    }
    expect(refusal(new Uint8Array([...sample, 0])).code).toBe('CAS_LOCATOR_INVALID');
    expect(refusal(sample, { maxBytes: sample.length - 1 }).message).toMatch(/allowed/);
    expect(refusal(sample, { maxPacks: 1 }).message).toMatch(/1 are allowed/);
  });

  it('answers every flipped bit with a typed error or something that re-encodes to itself', () => {
    for (let bit = 0; bit < sample.length * 8; bit++) {
      const bytes = flipBit(sample, bit);
      try {
        const locator = parseLocator(bytes);
        const { imageId, packs } = locator;
        const all = Array.from({ length: locator.recordCount }, (_, i) => locator.record(i));
        expect(encodeLocator({ imageId, packs, records: all })).toEqual(bytes);
      } catch (error) {
        expect(error).toMatchObject({ code: 'CAS_LOCATOR_INVALID' });
      }
    }
  });
});
