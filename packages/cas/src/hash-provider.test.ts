import { createHash } from 'node:crypto';

import { blake3 } from '@noble/hashes/blake3.js';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { blake3DeriveKeyScalar } from './blake3.ts';
import { checkHashProvider, type HashProvider } from './hash-provider.ts';
import { loadHashProvider } from './load-hash-provider.ts';
import { loadNodeHashProvider } from './node/node-hash-provider.ts';

const sha256 = (data: Uint8Array) => new Uint8Array(createHash('sha256').update(data).digest());

describe.each([
  ['portable', loadHashProvider],
  ['node', loadNodeHashProvider],
])('the %s hash provider', (_, load) => {
  it('gives the digests of other implementations, one-shot', async () => {
    const hash = await load();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20_000 }), (data) => {
        expect(hash.blake3(data)).toEqual(blake3(data));
        expect(hash.sha256(data)).toEqual(sha256(data));
        expect(hash.blake3DeriveKey('a test', data)).toEqual(blake3DeriveKeyScalar('a test', data));
      }),
      { numRuns: 40 },
    );
  });

  it('keeps any number of interleaved streams apart', async () => {
    const hash = await load();
    const step = fc.record({ stream: fc.nat(5), data: fc.uint8Array({ maxLength: 3000 }), oneShot: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const streams = Array.from({ length: 6 }, (_, i) => ({
          stream: i % 2 === 0 ? hash.createBlake3() : hash.createSha256(),
          fed: [] as number[],
        }));
        for (const { stream, data, oneShot } of steps) {
          streams[stream]!.stream.update(data);
          streams[stream]!.fed.push(...data);
          if (oneShot) hash.blake3(data);
        }
        for (const [i, { stream, fed }] of streams.entries()) {
          const data = Uint8Array.from(fed);
          expect(stream.digest()).toEqual(i % 2 === 0 ? blake3(data) : sha256(data));
        }
      }),
      { numRuns: 40 },
    );
  });

  it('refuses more once the digest is taken', async () => {
    const hash = await load();
    for (const stream of [hash.createBlake3(), hash.createSha256()]) {
      stream.digest();
      expect(() => stream.update(new Uint8Array(1))).toThrow();
      expect(() => stream.digest()).toThrow();
    }
  });
});

describe('the self-test', () => {
  const wrong = () => new Uint8Array(32);
  const broken: [string, Partial<HashProvider>][] = [
    ['blake3', { blake3: wrong }],
    ['sha256', { sha256: wrong }],
    ['derive key', { blake3DeriveKey: wrong }],
    ['BLAKE3 stream', { createBlake3: () => ({ update: () => undefined, digest: wrong }) }],
    ['SHA-256 stream', { createSha256: () => ({ update: () => undefined, digest: wrong }) }],
  ];
  it.each(broken)('finds a wrong %s', async (_, part) => {
    const hash = await loadHashProvider();
    expect(() => checkHashProvider({ ...hash, ...part })).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });

  it('finds streams that share a state', async () => {
    const hash = await loadHashProvider();
    let shared = hash.createBlake3();
    const createBlake3 = () => {
      shared = hash.createBlake3();
      return { update: (bytes: Uint8Array) => shared.update(bytes), digest: () => shared.digest() };
    };
    expect(() => checkHashProvider({ ...hash, createBlake3 })).toThrow();
  });
});
