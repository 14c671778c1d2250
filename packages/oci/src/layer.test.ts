import { constants, gzipSync, zstdCompressSync } from 'node:zlib';

import { MIB } from '@decant/core';
import { describe, expect, it } from 'vitest';

import type { Compression } from './decompress.ts';
import { StreamCursor } from './byte-cursor.ts';
import { createLayer } from './layer.ts';
import { DEFAULT_OCI_LIMITS, type OciLimits } from './limits.ts';
import { digestOf } from './testing/make-layout.ts';
import { failure, gather, inPieces } from './testing/streams.ts';

interface Made {
  readonly pieceBytes?: number;
  readonly stored?: Uint8Array;
  readonly limits?: Partial<OciLimits>;
}

/** A layer that declares `plain` and `stored`, and serves `made.stored` if that is given. */
function layer(plain: Uint8Array, stored: Uint8Array, compression: Compression, made: Made = {}) {
  return createLayer(
    {
      digest: digestOf(stored),
      diffId: digestOf(plain),
      mediaType: 'test',
      compression,
      sizeBytes: stored.length,
      read: () => inPieces(made.stored ?? stored, made.pieceBytes),
    },
    { ...DEFAULT_OCI_LIMITS, ...made.limits },
  );
}

const text = (length: number, seed = 1) => {
  const bytes = Buffer.alloc(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[i] = 97 + ((state >>> 16) % 20);
  }
  return bytes;
};

const PARTS = [text(300_000, 1), Buffer.alloc(0), text(5, 2), text(70_000, 3)];
const PLAIN = Buffer.concat(PARTS);
const SKIPPABLE = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
const checksummed = (part: Buffer) => zstdCompressSync(part, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });

const SMALL = Buffer.from('one, two, three');

describe('a layer', () => {
  it.each([
    ['plain', 'none', PLAIN],
    ['gzip', 'gzip', gzipSync(PLAIN)],
    ['gzip of several members', 'gzip', Buffer.concat(PARTS.map((part) => gzipSync(part)))],
    ['zstd', 'zstd', zstdCompressSync(PLAIN)],
    ['zstd of several frames', 'zstd', Buffer.concat(PARTS.map((part) => zstdCompressSync(part)))],
    [
      'zstd with checksums and skippable frames',
      'zstd',
      Buffer.concat([
        SKIPPABLE,
        checksummed(PARTS[0]!),
        SKIPPABLE,
        checksummed(Buffer.concat(PARTS.slice(1))),
        SKIPPABLE,
      ]),
    ],
  ] as const)('reads %s whatever the pieces', async (_, compression, stored) => {
    for (const pieceBytes of [1009, 65_536, stored.length]) {
      expect((await gather(layer(PLAIN, stored, compression, { pieceBytes }).open())).equals(PLAIN)).toBe(true);
    }
  });

  it.each([
    ['gzip', Buffer.concat([gzipSync('one'), gzipSync('two'), gzipSync('three')])],
    [
      'zstd',
      Buffer.concat([zstdCompressSync(Buffer.from('one')), SKIPPABLE, zstdCompressSync(Buffer.from('twothree'))]),
    ],
  ] as const)('finds the borders of %s byte by byte', async (compression, stored) => {
    const read = await gather(layer(Buffer.from('onetwothree'), stored, compression, { pieceBytes: 1 }).open());
    expect(read.toString()).toBe('onetwothree');
  });

  it.each(['none', 'gzip', 'zstd'] as const)(
    'notices changed, missing and added stored bytes (%s)',
    async (compression) => {
      const good = compression === 'none' ? PLAIN : compression === 'gzip' ? gzipSync(PLAIN) : zstdCompressSync(PLAIN);
      const changed = Buffer.from(good);
      changed[changed.length >> 1]! ^= 0x40;
      for (const stored of [changed, good.subarray(0, -1), Buffer.concat([good, Buffer.from('x')])]) {
        expect(await failure(gather(layer(PLAIN, good, compression, { stored }).open()))).toBe('OCI_DIGEST_MISMATCH');
      }
    },
  );

  it.each([
    ['zstd called gzip', 'gzip', zstdCompressSync(SMALL), SMALL],
    ['gzip called zstd', 'zstd', gzipSync(SMALL), SMALL],
    ['a plain layer called gzip', 'gzip', SMALL, SMALL],
    ['an empty layer called gzip', 'gzip', Buffer.alloc(0), Buffer.alloc(0)],
  ] as const)('goes by the bytes: %s', async (_, compression, stored, plain) => {
    for (const pieceBytes of [1, 65_536]) {
      const read = await gather(layer(plain, stored, compression, { pieceBytes }).open());
      expect(read.equals(plain)).toBe(true);
    }
    expect(await failure(gather(layer(Buffer.from('other'), stored, compression).open()))).toBe('OCI_DIGEST_MISMATCH');
  });

  it('notices a wrong diff id at the end', async () => {
    const stored = gzipSync(PLAIN);
    const wrong = layer(Buffer.from('other'), stored, 'gzip');
    let bytes = 0;
    const reading = (async () => {
      for await (const piece of wrong.open()) bytes += piece.length;
    })();
    expect(await failure(reading)).toBe('OCI_DIGEST_MISMATCH');
    expect(bytes).toBe(PLAIN.length);
    expect(() => layer(Buffer.from('other'), PLAIN, 'none')).toThrow(/declared/);
  });

  it.each([
    ['gzip cut short', 'gzip', gzipSync(PLAIN).subarray(0, -9)],
    ['gzip with something after it', 'gzip', Buffer.concat([gzipSync(PLAIN), Buffer.from('rubbish')])],
    ['gzip with zeros after it', 'gzip', Buffer.concat([gzipSync(PLAIN), Buffer.alloc(100)])],
    ['zstd cut in a block', 'zstd', zstdCompressSync(PLAIN).subarray(0, -9)],
    ['zstd cut in its magic', 'zstd', Buffer.concat([zstdCompressSync(PLAIN), Buffer.from([0x28, 0xb5])])],
    ['zstd with something after it', 'zstd', Buffer.concat([zstdCompressSync(PLAIN), Buffer.from('rubbish')])],
    [
      'zstd with a skippable frame cut short',
      'zstd',
      Buffer.concat([zstdCompressSync(PLAIN), SKIPPABLE.subarray(0, -1)]),
    ],
    ['zstd with a reserved block type', 'zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x07, 0, 0])],
    ['zstd with a dictionary', 'zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x58, 0x07, 1, 0, 0])],
  ] as const)('refuses %s, declared as it is', async (_, compression, stored) => {
    expect(await failure(gather(layer(PLAIN, stored, compression).open()))).toBe('LAYER_INVALID');
  });

  it('stops a bomb at the ratio, having held next to nothing', async () => {
    const stored = Buffer.concat(Array.from({ length: 6 }, () => ZEROS_64M));
    const layerRatio = Math.ceil((300 * MIB) / stored.length);
    const bomb = layer(PLAIN, stored, 'gzip', { limits: { layerRatio } });
    let bytes = 0;
    const reading = (async () => {
      for await (const piece of bomb.open()) bytes += piece.length;
    })();
    expect(await failure(reading)).toBe('LIMIT_EXCEEDED');
    expect(bytes).toBeLessThanOrEqual(layerRatio * stored.length);
    expect(bytes).toBeGreaterThan(299 * MIB);
  });

  it('lets little be much smaller than what it unpacks to', async () => {
    const zeros = Buffer.alloc(2 * MIB);
    const limits = { layerRatio: 1 };
    expect((await gather(layer(zeros, gzipSync(zeros), 'gzip', { limits }).open())).equals(zeros)).toBe(true);
  });

  it.each(['none', 'gzip', 'zstd'] as const)('gives its source up, whatever ends first (%s)', async (compression) => {
    const stored = compression === 'none' ? PLAIN : compression === 'gzip' ? gzipSync(PLAIN) : zstdCompressSync(PLAIN);
    let open = 0;
    const source = (bytes: Uint8Array, limits: Partial<OciLimits> = {}) =>
      createLayer(
        {
          digest: digestOf(stored),
          diffId: digestOf(PLAIN),
          mediaType: 'test',
          compression,
          sizeBytes: stored.length,
          async *read() {
            open++;
            try {
              yield* inPieces(bytes, 5000);
            } finally {
              open--;
            }
          },
        },
        { ...DEFAULT_OCI_LIMITS, ...limits },
      );
    for await (const _ of source(stored).open()) {
      expect(open).toBe(1);
      break;
    }
    expect(open).toBe(0);
    await gather(source(stored).open());
    expect(open).toBe(0);
    expect(await failure(gather(source(stored, { layerBytes: 100_000 }).open()))).toBe('LIMIT_EXCEEDED');
    expect(open).toBe(0);
    expect(await failure(gather(source(Buffer.alloc(stored.length, 0x1f)).open()))).toBe('OCI_DIGEST_MISMATCH');
    expect(open).toBe(0);
  });

  it.each(['gzip', 'zstd'] as const)(
    'tells damage near the start from a layer that was made so (%s)',
    async (compression) => {
      const good = compression === 'gzip' ? gzipSync(PLAIN) : zstdCompressSync(PLAIN);
      const damaged = Buffer.from(good);
      damaged.fill(0xff, 20, 400);
      const read = (made: Made) =>
        failure(gather(layer(PLAIN, good, compression, { pieceBytes: 4096, ...made }).open()));
      expect(await read({ stored: damaged })).toBe('OCI_DIGEST_MISMATCH');
      const asDeclared = layer(PLAIN, damaged, compression, { pieceBytes: 4096 });
      expect(await failure(gather(asDeclared.open()))).toBe('LAYER_INVALID');
    },
  );

  it('bounds the unpacked bytes and the zstd window', async () => {
    const limits = { layerBytes: 100_000 };
    for (const [compression, stored] of [
      ['none', PLAIN],
      ['gzip', gzipSync(PLAIN)],
      ['zstd', zstdCompressSync(PLAIN)],
    ] as const) {
      expect(await failure(gather(layer(PLAIN, stored, compression, { limits }).open()))).toBe('LIMIT_EXCEEDED');
    }
    // Window descriptor 0xff: an exponent of 31 and a mantissa of 7, 3.75 TiB.
    const wide = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0]);
    expect(await failure(gather(layer(Buffer.alloc(0), wide, 'zstd').open()))).toBe('LIMIT_EXCEEDED');
  });

  it('stops when told to, also while the decoder is ahead', async () => {
    const controller = new AbortController();
    const stored = gzipSync(PLAIN);
    const made = createLayer(
      {
        digest: digestOf(stored),
        diffId: digestOf(PLAIN),
        mediaType: 'test',
        compression: 'gzip',
        sizeBytes: stored.length,
        async *read(options = {}) {
          for await (const piece of inPieces(stored, 1000)) {
            options.signal?.throwIfAborted();
            yield piece;
          }
        },
      },
      DEFAULT_OCI_LIMITS,
    );
    const reading = (async () => {
      for await (const _ of made.open({ signal: controller.signal })) controller.abort(new Error('enough'));
    })();
    await expect(reading).rejects.toThrow('enough');
    for await (const _ of layer(PLAIN, stored, 'gzip').open()) break;
  });
});

const ZEROS_64M = gzipSync(Buffer.alloc(64 * 1024 * 1024), { level: 9 });

describe('a layer whose pieces are lent', () => {
  const long = text(1_500_000, 9);

  it.each([
    ['gzip', gzipSync(long)],
    ['zstd', zstdCompressSync(long)],
  ] as const)(
    'uses the memory of %s pieces that were read again, and a cursor on it knows where it is',
    async (compression, stored) => {
      const kept = new Set<ArrayBufferLike>();
      let pieces = 0;
      async function* seen() {
        for await (const piece of layer(long, stored, compression, { pieceBytes: 1 << 20 }).open({ lend: true })) {
          kept.add(piece.buffer);
          pieces++;
          yield piece;
        }
      }
      const cursor = new StreamCursor(seen());
      for (let at = 0; at < long.length; at = cursor.offset) {
        expect(Buffer.compare(await cursor.take(70_001), long.subarray(at, at + 70_001))).toBe(0);
        expect(await cursor.skip(130_003)).toBe(Math.min(130_003, Math.max(0, long.length - at - 70_001)));
        expect(cursor.offset).toBe(Math.min(at + 200_004, long.length));
      }
      await cursor.drain();
      expect(kept.size).toBeLessThan(pieces);
    },
  );

  it('leaves alone what was only read and not unpacked', async () => {
    const stored = Uint8Array.from(long);
    const source = { digest: digestOf(stored), diffId: digestOf(long), mediaType: 'test', sizeBytes: stored.length };
    const read = async function* () {
      yield stored;
    };
    const named = createLayer({ ...source, compression: 'gzip', read }, DEFAULT_OCI_LIMITS);
    for await (const piece of named.open({ lend: true })) expect(piece.length).toBeGreaterThan(0);
    expect(stored.length).toBe(long.length);
  });
});
