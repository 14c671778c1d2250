import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import { toHex } from '@decant/core';
import { blake3 as noble } from '@noble/hashes/blake3.js';
import * as fc from 'fast-check';
import { createBLAKE3 } from 'hash-wasm';
import { describe, expect, it } from 'vitest';

import { blake3Scalar, createBlake3Scalar, scalarCore } from './blake3.ts';
import { PLAIN_MODE } from './blake3-tree.ts';
import type { Blake3Functions, Blake3Options } from './hash-provider.ts';
import { createHashWasmBlake3 } from './hash-wasm-provider.ts';
import { createKernelBlake3 } from '../kernel/kernel-blake3.ts';
import { createKernelCore, WINDOW_BYTES } from '../kernel/kernel-core.ts';
import { compileKernel, openKernel } from '../kernel/kernel.ts';
import { createPortablePageHasher } from '../page-hasher.ts';
import { randomBytes } from '../test-data.ts';

interface Vectors {
  readonly key: string;
  readonly context: string;
  readonly cases: readonly { length: number; hash: string; keyed: string; derived: string }[];
}

const vectors = JSON.parse(await readFile(new URL('../../vectors/blake3.json', import.meta.url), 'utf8')) as Vectors;
const encoder = new TextEncoder();
const KEY = encoder.encode(vectors.key);
const CONTEXT = vectors.context;
const pattern = (length: number) => Uint8Array.from({ length }, (_, i) => i % 251);
const scalar: Blake3Functions = {
  blake3: blake3Scalar,
  createBlake3: createBlake3Scalar,
  createPageHasher: async () => createPortablePageHasher(blake3Scalar),
};

/** What another implementation gives for the same options. */
function expected(data: Uint8Array, { key, context, outputBytes = 32 }: Blake3Options): Uint8Array {
  return noble(data, {
    dkLen: outputBytes,
    ...(key === undefined ? {} : { key }),
    ...(context === undefined ? {} : { context: encoder.encode(context) }),
  });
}

const anyOptions: fc.Arbitrary<Blake3Options> = fc
  .tuple(
    fc.oneof(
      fc.constant({}),
      fc.uint8Array({ minLength: 32, maxLength: 32 }).map((key) => ({ key })),
      fc.string({ maxLength: 100, unit: 'grapheme' }).map((context) => ({ context })),
    ),
    fc.option(fc.integer({ min: 1, max: 300 }), { nil: undefined }),
  )
  .map(([mode, outputBytes]) => ({ ...mode, outputBytes }));

/**
 * SHA-256 over the 35 cases of the file test_vectors/test_vectors.json that BLAKE3's authors publish, each as a line
 * `length hash keyed_hash derive_key` with 131 bytes of output. Ours are computed by other implementations.
 */
const PUBLISHED_SHA256 = 'e9a8ea1a5abd8aae441a3a79f29cdddf1e49940c4149577c62f02992d986fe5f';

it('the vectors here are all those that are published for BLAKE3', () => {
  const lines = vectors.cases.map(({ length, hash, keyed, derived }) => `${length} ${hash} ${keyed} ${derived}\n`);
  expect(lines.length).toBe(35);
  expect(createHash('sha256').update(lines.join('')).digest('hex')).toBe(PUBLISHED_SHA256);
});

describe.each([
  ['the SIMD kernel', await createKernelBlake3(), 3_000_000],
  ['hash-wasm', await createHashWasmBlake3(), 3_000_000],
  ['plain code', scalar, 300_000],
] as const)('BLAKE3 by %s', (_, { blake3, createBlake3 }, longest) => {
  it('gives the vectors in every mode, whole and in pieces', () => {
    for (const { length, hash, keyed, derived } of vectors.cases) {
      const data = pattern(length);
      for (const [options, digest] of [
        [{ outputBytes: 131 }, hash],
        [{ outputBytes: 131, key: KEY }, keyed],
        [{ outputBytes: 131, context: CONTEXT }, derived],
      ] as const) {
        expect(toHex(blake3(data, options)), `${length} bytes`).toBe(digest);
        const { outputBytes: _, ...short } = options;
        expect(toHex(blake3(data, short)), `${length} bytes`).toBe(digest.slice(0, 64));
        const stream = createBlake3(options);
        for (let at = 0; at < length; at += 1000) stream.update(data.subarray(at, at + 1000));
        expect(toHex(stream.digest()), `${length} bytes in pieces`).toBe(digest);
      }
    }
  });

  it('agrees with two others at every block, leaf, group and window boundary, whatever the alignment', async () => {
    const other = await createBLAKE3();
    const bases = [0, 64, 128, 960, 1024, 2048, 3072, 4096, 5120, 7168, 8192, 16_384, 31_744, 65_536, WINDOW_BYTES];
    const far = [WINDOW_BYTES + 1024, 2 * WINDOW_BYTES, 3 * WINDOW_BYTES + 5000, 1 << 20, 3_000_000];
    const source = randomBytes(7, 3_000_100);
    let offset = 0;
    for (const base of [...bases, ...far].filter((value) => value <= longest)) {
      for (const length of [base - 1, base, base + 1].filter((value) => value >= 0)) {
        offset = (offset + 5) % 16;
        const data = source.subarray(offset, offset + length);
        const digest = toHex(blake3(data));
        expect(digest, `${length} bytes`).toBe(other.init().update(data).digest('hex'));
        if (length <= 300_000) expect(digest, `${length} bytes`).toBe(toHex(noble(data)));
        const stream = createBlake3();
        stream.update(data.subarray(0, length >> 1));
        stream.update(data.subarray(length >> 1));
        expect(toHex(stream.digest()), `${length} bytes in two pieces`).toBe(digest);
      }
    }
  });

  it('agrees with another implementation on any input, key, context and output length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 6000 }), anyOptions, (data, options) => {
        expect(blake3(data, options)).toEqual(expected(data, options));
      }),
      { numRuns: 60 },
    );
  });

  it('keeps streams of all modes apart, whatever their pieces, with whole digests between them', () => {
    const step = fc.record({
      stream: fc.nat(5),
      length: fc.oneof(fc.nat(100), fc.nat(5000), fc.constantFrom(1024, 4096, 4097, 8192, 70_000)),
      whole: fc.boolean(),
    });
    const source = randomBytes(3, 200_000);
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 30 }),
        fc.array(anyOptions, { minLength: 6, maxLength: 6 }),
        (steps, modes) => {
          const streams = modes.map((options, i) => ({
            options: i < 2 ? {} : options,
            stream: createBlake3(i < 2 ? undefined : options),
            fed: [] as Uint8Array[],
          }));
          for (const { stream, length, whole } of steps) {
            const piece = source.subarray(length, 2 * length);
            streams[stream]!.stream.update(piece);
            streams[stream]!.fed.push(piece);
            if (whole) blake3(piece, { key: KEY });
          }
          for (const { options, stream, fed } of streams) {
            expect(stream.digest()).toEqual(expected(Buffer.concat(fed), options));
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  it('gives shorter outputs as prefixes of longer ones', () => {
    const long = blake3(KEY, { outputBytes: 5000 });
    expect(long).toEqual(noble(KEY, { dkLen: 5000 }));
    for (const outputBytes of [1, 32, 63, 64, 65, 128, 4999]) {
      expect(blake3(KEY, { outputBytes })).toEqual(long.subarray(0, outputBytes));
    }
  });

  it('takes the key as it is when the stream is made, and leaves what it returned alone', () => {
    const key = KEY.slice();
    const stream = createBlake3({ key });
    key.fill(0);
    stream.update(KEY);
    const digest = stream.digest();
    const before = toHex(digest);
    blake3(pattern(5000));
    expect(toHex(digest)).toBe(before);
    expect(digest).toEqual(noble(KEY, { key: KEY }));
  });

  it.each([
    ['a short key', { key: new Uint8Array(31) }],
    ['a long key', { key: new Uint8Array(33) }],
    ['a key and a context', { key: KEY, context: CONTEXT }],
    ['no output', { outputBytes: 0 }],
    ['half a byte of output', { outputBytes: 1.5 }],
    ['too much output', { outputBytes: 2 ** 24 + 1 }],
  ])('refuses %s', (_, options) => {
    expect(() => blake3(KEY, options)).toThrow(RangeError);
    expect(() => createBlake3(options)).toThrow(RangeError);
  });

  it.each([['text'], [[1, 2, 3]], [new Uint16Array(4)], [new ArrayBuffer(4)]])(
    'refuses %j, which is no bytes, instead of hashing something else',
    (input) => {
      const bytes = input as unknown as Uint8Array;
      expect(() => blake3(bytes)).toThrow(TypeError);
      expect(() => blake3(KEY, { key: bytes })).toThrow(TypeError);
      expect(() => createBlake3().update(bytes)).toThrow(TypeError);
    },
  );
});

describe('counters of input that nobody feeds in a test', () => {
  it('go on past 32 bits in the kernel as in plain code', async () => {
    const core = createKernelCore(await openKernel(await compileKernel(), WINDOW_BYTES));
    const data = randomBytes(9, 16 * 1024);
    for (const counter of [2 ** 31 - 16, 2 ** 31, 2 ** 32 - 16, 2 ** 32, 2 ** 40]) {
      for (const length of [16 * 1024, 16 * 1024 - 1, 5000, 700]) {
        const span = { type: 'span', bytes: data.subarray(0, length), counter } as const;
        expect(core.value(span, PLAIN_MODE)).toEqual(scalarCore.value(span, PLAIN_MODE));
      }
    }
  });
});
