import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import { fromHex, toHex } from '@decant/core';
import { sha256 as noble } from '@noble/hashes/sha2.js';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { loadHashProvider } from './load-hash-provider.ts';
import { loadNodeHashProvider } from '../node/node-hash-provider.ts';
import { randomBytes } from '../test-data.ts';

interface Vectors {
  readonly short: readonly { readonly message: string; readonly digest: string }[];
  readonly long: readonly { readonly message: string; readonly digest: string }[];
  readonly monte: { readonly seed: string; readonly digests: readonly string[] };
}

const vectors = JSON.parse(await readFile(new URL('../../vectors/sha256.json', import.meta.url), 'utf8')) as Vectors;
/** Around every block of 64 bytes and every larger power of two that something is made in, to several MiB. */
const LENGTHS = [0, 55, 56, 64, 119, 128, 1024, 4096, 16_384, 65_536, 1 << 20, 5 << 20].flatMap((base) =>
  [base - 1, base, base + 1].filter((length) => length >= 0),
);
const bytesOf = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'));

describe.each([
  ['the portable provider', await loadHashProvider()],
  ['the Node provider', await loadNodeHashProvider()],
])('SHA-256 by %s', (_, { sha256, createSha256 }) => {
  it.each([
    ['short', vectors.short, 65],
    ['long', vectors.long, 64],
  ] as const)("gives NIST's digests of the %s messages, whole and in pieces", (_, messages, count) => {
    expect(messages.length).toBe(count);
    for (const { message, digest } of messages) {
      const bytes = bytesOf(message);
      expect(toHex(sha256(bytes)), `${bytes.length} bytes`).toBe(digest);
      const stream = createSha256();
      for (let at = 0; at < bytes.length; at += 77) stream.update(bytes.subarray(at, at + 77));
      expect(toHex(stream.digest()), `${bytes.length} bytes in pieces`).toBe(digest);
    }
  });

  it("goes through NIST's Monte Carlo test: a hundred times a thousand digests of the three before", () => {
    let seed = fromHex(vectors.monte.seed);
    expect(vectors.monte.digests.length).toBe(100);
    for (const [round, digest] of vectors.monte.digests.entries()) {
      let last = [seed, seed, seed];
      for (let i = 0; i < 1000; i++) last = [last[1]!, last[2]!, new Uint8Array(sha256(Buffer.concat(last)))];
      seed = last[2]!;
      expect(toHex(seed), `round ${round}`).toBe(digest);
    }
  });

  it('gives the digest of FIPS 180-2 for a million "a", in one piece', () => {
    const million = new Uint8Array(1e6).fill(0x61);
    expect(toHex(sha256(million))).toBe('cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0');
  });

  it('agrees with node:crypto and @noble/hashes at every length class and alignment', () => {
    const source = randomBytes(11, (5 << 20) + 32);
    for (const [i, length] of LENGTHS.entries()) {
      const data = source.subarray(i % 16, (i % 16) + length);
      const digest = toHex(sha256(data));
      expect(digest, `${length} bytes`).toBe(createHash('sha256').update(data).digest('hex'));
      if (length <= 1 << 20) expect(digest, `${length} bytes`).toBe(toHex(noble(data)));
    }
  });

  it('agrees with node:crypto on any input, and keeps streams apart', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 2000 }), { maxLength: 8 }), (pieces) => {
        const one = createSha256();
        const other = createSha256();
        for (const piece of pieces) {
          one.update(piece);
          other.update(piece);
          other.update(piece);
        }
        const digest = (all: Uint8Array[]) => new Uint8Array(createHash('sha256').update(Buffer.concat(all)).digest());
        expect(one.digest()).toEqual(digest(pieces));
        expect(other.digest()).toEqual(digest(pieces.flatMap((piece) => [piece, piece])));
      }),
      { numRuns: 40 },
    );
  });
});
