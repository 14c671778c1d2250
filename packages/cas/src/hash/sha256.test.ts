import { createHash } from 'node:crypto';

import { fromHex, toHex } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { loadHashProvider } from './load-hash-provider.ts';
import { loadNodeHashProvider } from '../node/node-hash-provider.ts';

const text = (value: string) => new TextEncoder().encode(value);

/** NIST: the examples of FIPS 180-2, appendix B, and short messages of the SHA validation system. */
const NIST: readonly [string, Uint8Array, string][] = [
  ['nothing', new Uint8Array(0), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
  ['d3', fromHex('d3'), '28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1'],
  ['11af', fromHex('11af'), '5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98'],
  ['"abc"', text('abc'), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
  [
    '448 bits',
    text('abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq'),
    '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1',
  ],
  [
    '896 bits',
    text(
      'abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu',
    ),
    'cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1',
  ],
  ['a million "a"', text('a'.repeat(1e6)), 'cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0'],
];

describe.each([
  ['the portable provider', await loadHashProvider()],
  ['the Node provider', await loadNodeHashProvider()],
])('SHA-256 by %s', (_, { sha256, createSha256 }) => {
  it.each(NIST)("gives NIST's digest of %s, whole and in pieces", (_, message, digest) => {
    expect(toHex(sha256(message))).toBe(digest);
    const stream = createSha256();
    for (let at = 0; at < message.length; at += 777) stream.update(message.subarray(at, at + 777));
    expect(toHex(stream.digest())).toBe(digest);
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
