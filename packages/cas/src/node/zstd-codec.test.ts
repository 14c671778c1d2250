import { constants, zstdCompressSync } from 'node:zlib';

import { concatBytes, KIB, type ChunkFrame } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { openChunk, verifyChunkAside } from '../chunk/open-chunk.ts';
import { chunkOf, randomPages } from '../test-data.ts';
import { createZstdCodec } from './zstd-codec.ts';

const codec = createZstdCodec();
const hash = await loadHashProvider();
const plain = new Uint8Array(65_536).map((_, i) => (i * i) >> 8);
const frame = codec.encode(plain).stored;
const ZSTD_INVALID = expect.objectContaining({ code: 'CAS_ZSTD_INVALID' });

describe('the zstd codec', () => {
  it('gives back what it was given, in memory of exactly that size', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 64 }),
        fc.nat(64),
        fc.integer({ min: 1, max: 19 }),
        (pages, easy, level) => {
          const bytes = randomPages(pages * 65 + easy + 1, pages);
          bytes.fill(9, 0, Math.min(bytes.length, easy * 4096));
          const { encoding, stored } = createZstdCodec({ level }).encode(bytes);
          expect(stored.buffer.byteLength).toBe(stored.length);
          expect(codec.decode(stored, encoding, bytes.length)).toEqual(bytes);
        },
      ),
      { numRuns: 30 },
    );
  });

  it.each([1, 2, 3, 4, 6])(
    'gives the frames of zstdCompressSync at level %s, whatever it compressed before',
    (level) => {
      const ours = createZstdCodec({ level });
      const params = { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_contentSizeFlag]: 1 };
      if (level === 1) params[constants.ZSTD_c_hashLog] = 14;
      // As much room as ours gives: where it is enough for the worst case, zstd ends some blocks elsewhere.
      const room = level > 4 ? {} : { chunkSize: 264 * KIB };
      const length = fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 60, max: 70 }));
      fc.assert(
        fc.property(length, fc.nat(100), fc.nat(), (pages, random, seed) => {
          const bytes = new Uint8Array(pages * 4096).map((_, i) => (i * (seed % 1000)) >> (seed % 13));
          bytes.set(randomPages(seed, Math.min(pages, random)), 0);
          const { encoding, stored } = ours.encode(bytes);
          const options = { pledgedSrcSize: bytes.length, params, ...room };
          const expected = zstdCompressSync(bytes, options);
          expect(encoding === 'raw' || Buffer.compare(stored, expected) === 0).toBe(true);
          expect(encoding === 'raw').toBe(expected.length > 0.95 * bytes.length);
        }),
        { numRuns: 30 },
      );
    },
  );

  it.each([1, 3, 6])('gives the same frames aside at level %s, many at once', async (level) => {
    const ours = createZstdCodec({ level });
    const chunks = Array.from({ length: 24 }, (_, n) => {
      // Compresses a little or much: what is left of an output buffer must not matter to the next frame.
      const bytes = randomPages(1000 + n, 10 * (n + 1)).map((byte, i) => byte >> ((i >> 13) % (2 + (n % 6))));
      bytes.set(randomPages(n, n % 4 === 0 ? 10 * (n + 1) : n % 4), 0);
      return bytes;
    });
    const aside = await Promise.all(chunks.map((bytes) => ours.encodeAside(bytes)));
    for (const [n, bytes] of chunks.entries()) {
      const { encoding, stored } = ours.encode(bytes);
      expect(aside[n]!.encoding).toBe(encoding);
      expect(Buffer.compare(aside[n]!.stored, stored)).toBe(0);
      const same = (plain: Uint8Array) => Buffer.compare(plain, bytes) === 0;
      expect(await ours.decodeAside(stored, encoding, bytes.length, same)).toBe(true);
    }
    expect(new Set(aside.map(({ encoding }) => encoding))).toEqual(new Set(['raw', 'zstd']));
  });

  it('refuses aside what it refuses otherwise, and decodes the next as if nothing had been', async () => {
    const ours = createZstdCodec();
    const aside = (stored: Uint8Array, encoding: 'raw' | 'zstd', plainBytes: number) =>
      ours.decodeAside(stored, encoding, plainBytes, (bytes) => Buffer.from(bytes));
    const bomb = zstdCompressSync(new Uint8Array(1 << 22));
    const lying = (declared: number) => {
      const bytes = new Uint8Array(bomb);
      new DataView(bytes.buffer).setUint32(bytes[4]! & 0x20 ? 5 : 6, declared, true);
      return bytes;
    };
    const flipped = frame.slice();
    flipped[frame.length >> 1]! ^= 0x55;
    for (const [stored, length] of [
      [bomb, 4096],
      [lying(4096), 4096],
      [lying(65_536), 65_536],
      [lying(1 << 20), 1 << 20],
      [lying(2 ** 23), 2 ** 23],
      [frame.subarray(0, 40), plain.length],
    ] as const) {
      await expect(aside(stored, 'zstd', length)).rejects.toThrow(ZSTD_INVALID);
      expect(Buffer.compare(await aside(frame, 'zstd', plain.length), plain)).toBe(0);
    }
    // Whatever comes of broken content, nothing of it is left.
    await aside(flipped, 'zstd', plain.length).catch((error: unknown) => expect(error).toEqual(ZSTD_INVALID));
    expect(Buffer.compare(await aside(frame, 'zstd', plain.length), plain)).toBe(0);
    await expect(aside(frame, 'raw', plain.length)).rejects.toThrow(
      expect.objectContaining({ code: 'CAS_CHUNK_MISMATCH' }),
    );
    const failing = ours.decodeAside(frame, 'zstd', plain.length, () => {
      throw new Error('of the user');
    });
    await expect(failing).rejects.toThrow('of the user');
  });

  it('says aside what it says otherwise of any bytes', async () => {
    const ours = createZstdCodec();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(frame.length - 1), fc.nat(255)), { minLength: 0, maxLength: 3 }),
        async (writes) => {
          const bytes = frame.slice();
          for (const [at, value] of writes) bytes[at] = value;
          const outcome = (make: () => Uint8Array) => {
            try {
              return Buffer.from(make()).toString('latin1');
            } catch (error) {
              expect(error).toEqual(ZSTD_INVALID);
              return 'refused';
            }
          };
          const expected = outcome(() => codec.decode(bytes, 'zstd', plain.length));
          const text = await ours
            .decodeAside(bytes, 'zstd', plain.length, (found) => Buffer.from(found).toString('latin1'))
            .catch((error: unknown) => {
              expect(error).toEqual(ZSTD_INVALID);
              return 'refused';
            });
          expect(text).toBe(expected);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('stores raw what saves under 5 %', () => {
    const bytes = randomPages(1, 100);
    expect(codec.encode(bytes).encoding).toBe('raw');
    expect(codec.encode(bytes.fill(0, 0, 4 * 4096)).encoding).toBe('raw');
    expect(codec.encode(bytes.fill(0, 0, 6 * 4096)).encoding).toBe('zstd');
  });

  it('refuses a length other than declared', () => {
    for (const length of [0, 4096, 65_535, 65_537, 2 ** 22]) {
      expect(() => codec.decode(frame, 'zstd', length)).toThrow(ZSTD_INVALID);
    }
    expect(() => codec.decode(plain, 'raw', 4096)).toThrow(expect.objectContaining({ code: 'CAS_CHUNK_MISMATCH' }));
  });

  it('refuses bombs, several frames, skippable frames, dictionaries and frames without a size', () => {
    const bomb = new Uint8Array(zstdCompressSync(new Uint8Array(2 ** 26)));
    expect(() => codec.decode(bomb, 'zstd', 65_536)).toThrow(ZSTD_INVALID);
    const lying = bomb.slice();
    // Its header: four bytes of content size behind magic, descriptor and window.
    const view = new DataView(lying.buffer);
    view.setUint32(lying[4]! & 0x20 ? 5 : 6, 65_536, true);
    expect(() => codec.decode(lying, 'zstd', 65_536)).toThrow(ZSTD_INVALID);
    expect(() => codec.decode(concatBytes([frame, frame]), 'zstd', 65_536)).toThrow(ZSTD_INVALID);
    const skippable = Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0);
    expect(() => codec.decode(concatBytes([skippable, frame]), 'zstd', 65_536)).toThrow(ZSTD_INVALID);
    expect(() => codec.decode(concatBytes([frame, skippable]), 'zstd', 65_536)).toThrow(ZSTD_INVALID);
    const dictionary = frame.slice();
    dictionary[4] = dictionary[4]! | 1;
    expect(() => codec.decode(dictionary, 'zstd', 65_536)).toThrow(ZSTD_INVALID);
    const unsized = zstdCompressSync(plain, { params: { [constants.ZSTD_c_contentSizeFlag]: 0 } });
    expect(() => codec.decode(unsized, 'zstd', 65_536)).toThrow(ZSTD_INVALID);
  });

  it('reads frames with a checksum and of other levels', () => {
    const other = zstdCompressSync(plain, {
      params: { [constants.ZSTD_c_checksumFlag]: 1, [constants.ZSTD_c_compressionLevel]: 9 },
    });
    expect(codec.decode(other, 'zstd', plain.length)).toEqual(plain);
  });

  it('refuses every truncation', () => {
    for (let length = 0; length < frame.length; length += 7) {
      expect(() => codec.decode(frame.subarray(0, length), 'zstd', plain.length)).toThrow(ZSTD_INVALID);
    }
  });

  it('never gives more than was asked for, whatever the bytes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(frame.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 }),
        (writes) => {
          const bytes = frame.slice();
          for (const [at, value] of writes) bytes[at] = value;
          try {
            expect(codec.decode(bytes, 'zstd', plain.length)).toHaveLength(plain.length);
          } catch (error) {
            expect(error).toEqual(ZSTD_INVALID);
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe('openChunk', () => {
  const { id } = chunkOf(plain, hash);
  const good: ChunkFrame = { id, encoding: 'zstd', plainBytes: plain.length, stored: frame };
  const MISMATCH = expect.objectContaining({ code: 'CAS_CHUNK_MISMATCH' });
  it('gives the plain bytes of a good chunk only, and verifies aside alike', async () => {
    const tools = { hash, codec };
    const mine = { id, plainBytes: plain.length };
    expect(openChunk(good, mine, tools)).toEqual(plain);
    await verifyChunkAside(good, mine, tools);
    const other = chunkOf(randomPages(1, 16), hash);
    for (const [given, expected] of [
      [good, other],
      [{ ...good, id: other.id }, other],
      [{ ...good, plainBytes: 4096 }, mine],
      [{ ...good, encoding: 'raw' }, mine],
      [{ ...good, encoding: 'raw', stored: plain.map((byte, at) => (at === 9 ? byte ^ 1 : byte)) }, mine],
    ] as const) {
      expect(() => openChunk(given, expected, tools)).toThrow(MISMATCH);
      await expect(verifyChunkAside(given, expected, tools)).rejects.toThrow(MISMATCH);
    }
    const cut = { ...good, stored: frame.subarray(0, 40) };
    expect(() => openChunk(cut, mine, tools)).toThrow(ZSTD_INVALID);
    await expect(verifyChunkAside(cut, mine, tools)).rejects.toMatchObject({
      code: 'CAS_ZSTD_INVALID',
      details: { chunk: id },
    });
  });
});
