import { toHex } from '@decant/core';
import { blake3 } from '@noble/hashes/blake3.js';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { blake3DeriveKeyScalar, blake3KeyedScalar, blake3Scalar } from './blake3.ts';

const CONTEXT = 'BLAKE3 2019-12-27 16:29:52 test vectors context';
const KEY = new TextEncoder().encode('whats the Elvish word for friend');
const pattern = (length: number) => Uint8Array.from({ length }, (_, i) => i % 251);

/** From BLAKE3's published test_vectors.json: length, hash, keyed_hash, derive_key, the first 32 bytes of each. */
const VECTORS = [
  [
    0,
    'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
    '92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26',
    '2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d',
  ],
  [
    1,
    '2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213',
    '6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b',
    'b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c',
  ],
  [
    1024,
    '42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7',
    '75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4',
    '7356cd7720d5b66b6d0697eb3177d9f8d73a4a5c5e968896eb6a689684302706',
  ],
] as const;

describe('scalar BLAKE3', () => {
  it.each(VECTORS)('gives the published digests of %i bytes in every mode', (length, hash, keyed, derived) => {
    const data = pattern(length);
    expect(toHex(blake3Scalar(data))).toBe(hash);
    expect(toHex(blake3KeyedScalar(KEY, data))).toBe(keyed);
    expect(toHex(blake3DeriveKeyScalar(CONTEXT, data))).toBe(derived);
  });

  it('agrees with another implementation at every block and chunk boundary', () => {
    for (const base of [0, 64, 128, 1024, 2048, 3072, 4096, 5120, 7168, 8192, 16384, 31744]) {
      for (const length of [base - 1, base, base + 1].filter((value) => value >= 0)) {
        const data = pattern(length);
        expect(blake3Scalar(data), `hash of ${length}`).toEqual(blake3(data));
        expect(blake3KeyedScalar(KEY, data), `keyed ${length}`).toEqual(blake3(data, { key: KEY }));
      }
    }
  });

  it('agrees with another implementation on any input, key and context', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 6000 }),
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.string({ maxLength: 100, unit: 'grapheme' }),
        (data, key, context) => {
          expect(blake3Scalar(data)).toEqual(blake3(data));
          expect(blake3KeyedScalar(key, data)).toEqual(blake3(data, { key }));
          const contextBytes = new TextEncoder().encode(context);
          expect(blake3DeriveKeyScalar(context, data)).toEqual(blake3(data, { context: contextBytes }));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('refuses keys of another length', () => {
    expect(() => blake3KeyedScalar(new Uint8Array(31), KEY)).toThrow(RangeError);
  });
});
