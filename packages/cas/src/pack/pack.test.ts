import { concatBytes, PAGE_BYTES, toHex, type ChunkFrame, type DecantError } from '@decant/core';
import { blake3 } from '@noble/hashes/blake3.js';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { viewOf, writeU64 } from '../bytes/bytes-reader.ts';
import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { createMemoryRandomAccess } from '../image/memory-random-access.ts';
import { createZstdCodec } from '../node/zstd-codec.ts';
import { openChunk } from '../chunk/open-chunk.ts';
import { createPackBuilder } from '../pack-builder.ts';
import { packFrame, readPackTable } from './pack-table.ts';
import { chunkOf, flipBit, randomPages } from '../test-data.ts';

const hash = await loadHashProvider();
const codec = createZstdCodec();

function frameOf(plain: Uint8Array): ChunkFrame {
  return { id: chunkOf(plain, hash).id, plainBytes: plain.length, ...codec.encode(plain) };
}

function build(plains: Uint8Array[]) {
  const builder = createPackBuilder({ hash });
  const parts = plains.flatMap((plain) => builder.add(frameOf(plain)));
  const expected = builder.sizeBytes;
  const finished = builder.finish();
  const bytes = concatBytes([...parts, finished.bytes]);
  expect(bytes.length).toBe(expected);
  return { ...finished, pack: bytes };
}

const read = (pack: Uint8Array) => readPackTable(createMemoryRandomAccess(pack), { hash });
async function refusal(pack: Uint8Array): Promise<DecantError> {
  return read(pack).then(
    () => expect.fail('it was accepted'),
    (error: DecantError) => error,
  );
}

const compressible = (seed: number, pages: number) => {
  const bytes = new Uint8Array(pages * PAGE_BYTES).fill(seed);
  bytes.set(randomPages(seed, 1));
  return bytes;
};
const plains = [randomPages(1, 2), compressible(2, 16), compressible(3, 3), randomPages(4, 1)];
const sample = build(plains);
const tableAt = sample.pack.length - 48 - 4 * 56;

describe('a pack', () => {
  it('gives back every chunk', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 9999 }), fc.integer({ min: 1, max: 12 }), fc.boolean()), {
          minLength: 1,
          maxLength: 12,
        }),
        async (plan) => {
          const all = plan.map(([seed, pages, easy]) => (easy ? compressible(seed, pages) : randomPages(seed, pages)));
          const { pack, digest, table } = build(all);
          expect(digest).toBe(toHex(blake3(pack)));
          const found = await read(pack);
          expect([...found.rows()]).toEqual([...table.rows()]);
          expect(found.sizeBytes).toBe(pack.length);
          for (const [i, plain] of all.entries()) {
            const frame = await packFrame(createMemoryRandomAccess(pack), found.row(i));
            expect(openChunk(frame, chunkOf(plain, hash), { hash, codec })).toEqual(plain);
          }
          expect(() => found.row(all.length)).toThrow(RangeError);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('stops at its limits', () => {
    const plain = randomPages(1, 1);
    const two = createPackBuilder({ hash, maxChunks: 2 });
    two.add(frameOf(plain));
    two.add(frameOf(plain));
    expect(two.fits(1)).toBe(false);
    expect(() => two.add(frameOf(plain))).toThrow(RangeError);
    const exact = createPackBuilder({ hash, maxBytes: 48 + 4096 + 56 + 48 });
    expect(exact.fits(4097)).toBe(false);
    expect(exact.fits(4096)).toBe(true);
    expect(() => createPackBuilder({ hash, maxBytes: 2 ** 26 + 1 })).toThrow(RangeError);
    expect(() => createPackBuilder({ hash, maxChunks: 65_537 })).toThrow(RangeError);
  });

  it('is never empty, finished twice or given impossible frames', () => {
    const builder = createPackBuilder({ hash });
    expect(() => builder.finish()).toThrow(RangeError);
    const frame = frameOf(randomPages(1, 1));
    expect(() => builder.add({ ...frame, plainBytes: 8192 })).toThrow(RangeError);
    expect(() => builder.add({ ...frame, plainBytes: 4095, stored: new Uint8Array(4095) })).toThrow(RangeError);
    expect(() => builder.add({ ...frame, encoding: 'zstd' })).toThrow(RangeError);
    builder.add(frame);
    builder.finish();
    expect(() => builder.finish()).toThrow(RangeError);
    expect(() => builder.add(frame)).toThrow(RangeError);
  });
});

describe('readPackTable', () => {
  /** Changes the table or footer and makes the digest fit again. */
  const edit = (change: (pack: Uint8Array, view: DataView) => void) => {
    const pack = sample.pack.slice();
    change(pack, viewOf(pack));
    pack.set(hash.blake3(pack.subarray(tableAt, pack.length - 48)), pack.length - 32);
    return pack;
  };
  const footerAt = sample.pack.length - 48;
  const cases: [string, number, (pack: Uint8Array, view: DataView) => void, RegExp][] = [
    ['magic', 0, (pack) => (pack[0] = 0), /DCNTPCK1/],
    ['flags', 8, (pack) => (pack[8] = 2), /unknown flags/],
    ['encryption', 8, (pack) => (pack[8] = 1), /encrypted, which this version cannot read/],
    ['reserved word', 12, (pack) => (pack[12] = 1), /must be zero/],
    ['nonce without encryption', 47, (pack) => (pack[47] = 1), /must be zero/],
    ['version', footerAt + 12, (_, view) => view.setUint32(footerAt + 12, 2, true), /version/],
    ['count', footerAt, (_, view) => view.setUint32(footerAt + 8, 3, true), /table does not reach/],
    ['count of none', footerAt + 8, (_, view) => view.setUint32(footerAt + 8, 0, true), /0 chunks/],
    ['count above the limit', footerAt + 8, (_, view) => view.setUint32(footerAt + 8, 65_537, true), /65537 chunks/],
    ['table offset', footerAt, (_, view) => writeU64(view, footerAt, 40), /table does not reach/],
    ['first offset', tableAt + 32, (_, view) => writeU64(view, tableAt + 32, 49), /begins at 49/],
    ['overlap', tableAt + 88, (_, view) => writeU64(view, tableAt + 88, 48), /begins at 48, not at/],
    ['gap', tableAt + 88, (_, view) => writeU64(view, tableAt + 88, 9000), /begins at 9000, not at/],
    ['encoding', tableAt + 48, (pack) => (pack[tableAt + 48] = 2), /encoding/],
    ['row padding', tableAt + 55, (pack) => (pack[tableAt + 55] = 1), /reserved/],
    ['plain length', tableAt + 40, (_, view) => view.setUint32(tableAt + 44, 4 * 2 ** 20 + 4096, true), /plain bytes/],
    ['plain length off a page', tableAt + 40, (_, view) => view.setUint32(tableAt + 44, 8193, true), /plain bytes/],
    ['raw length', tableAt + 40, (_, view) => view.setUint32(tableAt + 40, 4096, true), /is stored in 4096/],
    ['zstd length', tableAt + 96, (_, view) => view.setUint32(tableAt + 96, 0, true), /is stored in 0/],
  ];
  it.each(cases)('refuses a wrong %s at byte %i', async (_, offset, change, message) => {
    const error = await refusal(edit(change));
    expect(error).toMatchObject({ code: 'CAS_PACK_INVALID', details: { offset } });
    expect(error.message).toMatch(message);
  });

  it('refuses chunks that end before or reach into the table', async () => {
    const last = tableAt + 3 * 56;
    const long = await refusal(
      edit((_, view) => {
        view.setUint32(last + 40, 8192, true);
        view.setUint32(last + 44, 8192, true);
      }),
    );
    expect(long.message).toMatch(/reaches into the table/);
    const short = await refusal(
      edit((pack, view) => {
        pack[last + 48] = 1;
        view.setUint32(last + 40, 100, true);
      }),
    );
    expect(short.message).toMatch(/the table begins at/);
  });

  it('refuses truncations and sizes beyond the limit', async () => {
    for (const length of [0, 47, 151, 152, sample.pack.length - 1]) {
      expect((await refusal(sample.pack.subarray(0, length))).code).toBe('CAS_PACK_INVALID');
    }
    const huge = { sizeBytes: 2 ** 26 + 1, read: () => Promise.reject(new Error('it was read')) };
    await expect(readPackTable(huge, { hash })).rejects.toMatchObject({ code: 'CAS_PACK_INVALID' });
  });

  it('finds any of 1,500 flipped bits, in the table or when the chunk is opened', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(sample.pack.length * 8 - 1), async (bit) => {
        const pack = flipBit(sample.pack, bit);
        const inFrames = bit >> 3 >= 48 && bit >> 3 < tableAt;
        if (!inFrames) {
          expect((await refusal(pack)).code).toBe('CAS_PACK_INVALID');
          return;
        }
        const table = await read(pack);
        let found = 0;
        for (const [i, plain] of plains.entries()) {
          const row = table.row(i);
          if (bit >> 3 < row.offset || bit >> 3 >= row.offset + row.storedBytes) continue;
          const frame = await packFrame(createMemoryRandomAccess(pack), row);
          try {
            // A decoder ignores one bit of a zstd header; then the bytes must be the right ones.
            expect(openChunk(frame, chunkOf(plain, hash), { hash, codec })).toEqual(plain);
            expect(row.encoding).toBe('zstd');
          } catch (error) {
            expect((error as DecantError).code).toMatch(/^CAS_(CHUNK_MISMATCH|ZSTD_INVALID)$/);
          }
          found++;
        }
        expect(found).toBe(1);
      }),
      { numRuns: 1500 },
    );
  });
});
