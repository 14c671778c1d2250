import { PAGE_BYTES, toHex } from '@decant/core';
import { blake3 as noble } from '@noble/hashes/blake3.js';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { CUT_RULES, pageHash } from './chunk/cut-rules.ts';
import { createHashWasmBlake3 } from './hash/hash-wasm-provider.ts';
import { createKernelBlake3 } from './kernel/kernel-blake3.ts';
import { randomBytes, randomPages } from './test-data.ts';

const kernel = await createKernelBlake3();
const portable = await createHashWasmBlake3();
const NEVER = { ...CUT_RULES.foreign, minPages: 1, cutBelow: 0 };

describe.each([
  ['the SIMD kernel', kernel],
  ['plain code', portable],
])('the page hasher of %s', (_, functions) => {
  it('ends a chunk after the page whose hash is below the bound, and not before the minimum', async () => {
    using hasher = await functions.createPageHasher();
    const pages = randomPages(5, 40);
    // Bytes with the upper bit set, so that products and comparisons must be unsigned.
    pages.fill(0xff, 3 * PAGE_BYTES, 4 * PAGE_BYTES);
    hasher.buffer.set(pages, 2 * PAGE_BYTES);
    const words = new Uint32Array(pages.slice().buffer);
    for (let page = 0; page < 40; page++) {
      const at = (2 + page) * PAGE_BYTES;
      const hash = pageHash(words, page * 1024);
      expect(hasher.dataPages(at, 1, 7, { ...NEVER, cutBelow: hash })).toEqual({ pages: 1, ends: false });
      if (hash === 2 ** 32 - 1) continue;
      expect(hasher.dataPages(at, 1, 7, { ...NEVER, cutBelow: hash + 1 })).toEqual({ pages: 1, ends: true });
      const early = { ...NEVER, minPages: 9, cutBelow: hash + 1 };
      expect(hasher.dataPages(at, 1, 7, early)).toEqual({ pages: 1, ends: false });
      expect(hasher.dataPages(at, 1, 8, early)).toEqual({ pages: 1, ends: true });
    }
  });

  it('counts pages of zeros and stops data before one, wherever the one byte that is not zero stands', async () => {
    using hasher = await functions.createPageHasher();
    hasher.buffer.fill(0, 0, 6 * PAGE_BYTES);
    expect(hasher.zeroPages(0, 6)).toBe(6);
    for (const place of [0, 15, 16, 63, 64, 2048, PAGE_BYTES - 1]) {
      hasher.buffer[3 * PAGE_BYTES + place] = 1;
      expect(hasher.zeroPages(0, 6), `byte ${place}`).toBe(3);
      expect(hasher.zeroPages(4 * PAGE_BYTES, 2)).toBe(2);
      expect(hasher.dataPages(3 * PAGE_BYTES, 3, 0, NEVER), `byte ${place}`).toEqual({ pages: 1, ends: false });
      hasher.buffer[3 * PAGE_BYTES + place] = 0;
    }
  });

  it('hashes chunks of 1 to 256 pages, in runs of any length, like another implementation', async () => {
    using hasher = await functions.createPageHasher();
    hasher.buffer.set(randomBytes(11, 300 * PAGE_BYTES));
    fc.assert(
      fc.property(
        fc.nat(40),
        fc.array(fc.record({ pages: fc.integer({ min: 1, max: 60 }), plain: fc.boolean() }), {
          minLength: 1,
          maxLength: 6,
        }),
        (start, runs) => {
          const at = start * PAGE_BYTES;
          let have = 0;
          for (const { pages, plain } of runs) {
            const count = Math.min(pages, 256 - have);
            if (plain) hasher.plainPages(at + have * PAGE_BYTES, count, have);
            else expect(hasher.dataPages(at + have * PAGE_BYTES, count, have, NEVER).pages).toBe(count);
            have += count;
          }
          const chunk = hasher.buffer.subarray(at, at + have * PAGE_BYTES);
          expect(toHex(hasher.endChunk(at, have))).toBe(toHex(portable.blake3(chunk)));
        },
      ),
      { numRuns: 40 },
    );
    hasher.dataPages(0, 256, 0, NEVER);
    expect(hasher.endChunk(0, 256)).toEqual(noble(hasher.buffer.subarray(0, 256 * PAGE_BYTES)));
  });

  it('works up to the end of its buffer', async () => {
    using hasher = await functions.createPageHasher();
    const pages = hasher.buffer.length / PAGE_BYTES;
    hasher.buffer.set(randomPages(2, 3), hasher.buffer.length - 3 * PAGE_BYTES);
    const at = (pages - 3) * PAGE_BYTES;
    expect(hasher.dataPages(at, 3, 0, NEVER).pages).toBe(3);
    expect(hasher.endChunk(at, 3)).toEqual(noble(randomPages(2, 3)));
  });
});

describe('the page hasher of the SIMD kernel', () => {
  it('refuses pages outside its buffer and chunks that are too long', async () => {
    using hasher = await kernel.createPageHasher();
    const bytes = hasher.buffer.length;
    for (const [at, count, have] of [
      [-PAGE_BYTES, 1, 0],
      [1, 1, 0],
      [0, -1, 0],
      [bytes, 1, 0],
      [bytes - PAGE_BYTES, 2, 0],
      [Number.NaN, 1, 0],
      [0, 257, 0],
      [0, 1, 256],
      [0, 1, -1],
    ] as const) {
      expect(() => hasher.dataPages(at, count, have, NEVER), `${at} ${count} ${have}`).toThrow(RangeError);
      expect(() => hasher.plainPages(at, count, have), `${at} ${count} ${have}`).toThrow(RangeError);
    }
    expect(() => hasher.zeroPages(bytes, 1)).toThrow(RangeError);
    expect(() => hasher.endChunk(0, 0)).toThrow(RangeError);
    expect(() => hasher.endChunk(0, 257)).toThrow(RangeError);
  });

  it('keeps images apart that are cut at the same time, and refuses to work after its end', async () => {
    const [one, other] = [await kernel.createPageHasher(), await kernel.createPageHasher()];
    one.buffer.set(randomPages(1, 2));
    other.buffer.set(randomPages(2, 2));
    one.dataPages(0, 2, 0, NEVER);
    other.dataPages(0, 2, 0, NEVER);
    expect(one.endChunk(0, 2)).toEqual(noble(randomPages(1, 2)));
    one[Symbol.dispose]();
    one[Symbol.dispose]();
    expect(() => one.zeroPages(0, 1)).toThrow('disposed');
    using next = await kernel.createPageHasher();
    using another = await kernel.createPageHasher();
    expect(next.buffer).not.toBe(another.buffer);
    expect(other.endChunk(0, 2)).toEqual(noble(randomPages(2, 2)));
    other[Symbol.dispose]();
  });
});
