import { MIB, PAGE_BYTES } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { chunkImage } from './chunker.ts';
import { CUT_RULES, isZeroPage, MAX_HOLE_PAGES, pageHash, STRIPE_PAGES, type ChunkLayout } from './cut-rules.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import { createHashWasmBlake3 } from '../hash/hash-wasm-provider.ts';
import type { ImageChunk } from '../image-cutter.ts';
import { loadHashProvider } from '../hash/load-hash-provider.ts';
import type { ImagePiece } from './piece.ts';
import { chunkOf, collect, randomBytes, randomPages } from '../test-data.ts';

const simd = await loadHashProvider();
const portable: HashProvider = { ...simd, ...(await createHashWasmBlake3()), name: 'hash-wasm' };
const lengths = (chunks: ImageChunk[]) =>
  chunks.map((chunk) => (chunk.type === 'hole' ? -chunk.lengthBytes : chunk.bytes.length) / PAGE_BYTES);
const data = (bytes: Uint8Array): ImagePiece => ({ type: 'data', bytes });
const zeros = (pages: number): ImagePiece => ({ type: 'zeros', lengthBytes: pages * PAGE_BYTES });
const CUT: ImagePiece = { type: 'cut' };

/** The rules of docs/formats/chunking.md on a whole image at once: zero runs first, then cuts inside the data runs. */
function reference(image: Uint8Array, hints: ReadonlySet<number>, layout: ChunkLayout): number[] {
  const { minPages, maxPages, cutBelow } = CUT_RULES[layout];
  const words = new Uint32Array(image.slice().buffer);
  const count = image.length / PAGE_BYTES;
  const zero = Array.from({ length: count }, (_, i) => isZeroPage(words, i * 1024));
  const hole = zero.map(() => false);
  for (let i = 0; i < count;) {
    let end = i;
    while (end < count && zero[end]) end++;
    if (end - i >= minPages) hole.fill(true, i, end);
    i = Math.max(end, i + 1);
  }
  const result: number[] = [];
  let open = 0;
  const flush = () => {
    if (open > 0) result.push(open);
    open = 0;
  };
  for (let i = 0; i < count; i++) {
    if (hole[i]) {
      flush();
      if (i > 0 && hole[i - 1]) result[result.length - 1]!--;
      else result.push(-1);
      continue;
    }
    if (i % STRIPE_PAGES === 0 || (layout === 'hinted' && hints.has(i))) flush();
    open++;
    if (open === maxPages || (open >= minPages && !zero[i] && pageHash(words, i * 1024) < cutBelow)) flush();
  }
  flush();
  return result;
}

/** A random image of data and zero runs around the minimum, with hints. */
const imagePlan = fc.array(
  fc.record({
    kind: fc.constantFrom('data', 'data', 'repeat', 'zeros'),
    pages: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 300 })),
    seed: fc.integer({ min: 1, max: 1 << 30 }),
    hint: fc.boolean(),
  }),
  { minLength: 1, maxLength: 10 },
);

describe.each([
  ['the SIMD kernel', simd],
  ['hash-wasm', portable],
])('chunkImage with %s', (_, hash) => {
  const run = (pieces: Iterable<ImagePiece> | AsyncIterable<ImagePiece>, layout: ChunkLayout = 'hinted') =>
    collect(chunkImage(pieces, { layout, hash }));

  it.each(['hinted', 'foreign'] as const)(
    'follows the rules and ignores how %s input is split',
    async (layout) => {
      await fc.assert(
        fc.asyncProperty(imagePlan, fc.infiniteStream(fc.integer({ min: 1, max: 300_000 })), async (plan, splits) => {
          const hints = new Set<number>();
          const parts: Uint8Array[] = [];
          let page = 0;
          for (const { kind, pages, seed, hint } of plan) {
            if (hint) hints.add(page);
            if (hint && pages > 3) hints.add(page + 2);
            const part = new Uint8Array(pages * PAGE_BYTES);
            if (kind === 'data') part.set(randomPages(seed, pages));
            if (kind === 'repeat') for (let i = 0; i < pages; i++) part.set(randomPages(seed, 1), i * PAGE_BYTES);
            parts.push(part);
            page += pages;
          }
          const image = new Uint8Array(Buffer.concat(parts));
          const pieces: ImagePiece[] = [];
          for (let at = 0; at < image.length;) {
            if (hints.has(at / PAGE_BYTES)) pieces.push(CUT);
            const hint = [...hints].map((value) => value * PAGE_BYTES).filter((value) => value > at);
            const end = Math.min(image.length, at + splits.next().value!, ...hint);
            const bytes = image.subarray(at, end);
            pieces.push(bytes.every((byte) => byte === 0) ? { type: 'zeros', lengthBytes: bytes.length } : data(bytes));
            at = end;
          }
          const chunks = await run(pieces, layout);
          expect(lengths(chunks)).toEqual(reference(image, hints, layout));
          let at = 0;
          for (const chunk of chunks) {
            const lengthBytes = chunk.type === 'hole' ? chunk.lengthBytes : chunk.bytes.length;
            if (chunk.type === 'chunk') {
              const plain = image.subarray(at, at + lengthBytes);
              expect(chunk.id).toBe(chunkOf(plain, hash).id);
              expect(Buffer.compare(chunk.bytes, plain)).toBe(0);
            }
            at += lengthBytes;
          }
          expect(at).toBe(image.length);
        }),
        { numRuns: 25 },
      );
    },
    30_000,
  );

  it('fills the last page with zeros and gives nothing for nothing', async () => {
    const chunks = await run([data(Uint8Array.of(1, 2, 3))]);
    expect(chunks).toHaveLength(1);
    const page = new Uint8Array(PAGE_BYTES);
    page.set([1, 2, 3]);
    expect(chunks[0]).toEqual({ type: 'chunk', id: chunkOf(page, hash).id, bytes: page });
    expect(await run([])).toEqual([]);
    expect(await run([CUT, data(new Uint8Array(0)), zeros(0)])).toEqual([]);
  });

  it('makes a hole of a zero run of the minimum, not of one page less', async () => {
    const some = randomPages(3, 2);
    const image = (pages: number) => [data(some), zeros(pages), data(some)];
    expect(lengths(await run(image(16)))).toEqual([2, -16, 2]);
    expect(lengths(await run(image(15)))).toEqual([19]);
    expect(lengths(await run(image(4), 'foreign'))).toEqual([2, -4, 2]);
    expect(lengths(await run([zeros(15)]))).toEqual([15]);
    expect(lengths(await run([zeros(16)]))).toEqual([-16]);
    expect(lengths(await run([data(new Uint8Array(16 * PAGE_BYTES))]))).toEqual([-16]);
  });

  it('cuts at a hint, also behind a short zero run, but not inside a hole or a foreign image', async () => {
    const some = randomPages(3, 2);
    expect(lengths(await run([data(some), CUT, data(some)]))).toEqual([2, 2]);
    expect(lengths(await run([data(some), zeros(3), CUT, data(some)]))).toEqual([5, 2]);
    expect(lengths(await run([data(some), zeros(3), CUT, zeros(3), data(some)]))).toEqual([5, 5]);
    expect(lengths(await run([data(some), zeros(9), CUT, zeros(9), data(some)]))).toEqual([2, -18, 2]);
    expect(lengths(await run([data(some), CUT, data(some)], 'foreign'))).toEqual([4]);
  });

  it('cuts data at stripes and leaves holes whole across them', async () => {
    const some = randomPages(5, 4);
    expect(lengths(await run([zeros(STRIPE_PAGES - 2), data(some)]))).toEqual([-(STRIPE_PAGES - 2), 2, 2]);
    const across = [data(some), zeros(STRIPE_PAGES * 2), data(some)];
    expect(lengths(await run(across))).toEqual([4, -STRIPE_PAGES * 2, 4]);
    // Eight zero pages on either side of the stripe are sixteen together.
    const around = [zeros(STRIPE_PAGES - 10), data(some.subarray(0, 2 * PAGE_BYTES)), zeros(16), data(some)];
    expect(lengths(await run(around))).toEqual([-(STRIPE_PAGES - 10), 2, -16, 4]);
  });

  it('splits a hole into full entries and a rest', async () => {
    const huge = zeros(2 * MAX_HOLE_PAGES + 5);
    expect(lengths(await run([huge, data(randomPages(1, 1))]))).toEqual([-MAX_HOLE_PAGES, -MAX_HOLE_PAGES, -5, 1]);
    expect(lengths(await run([huge]))).toEqual([-MAX_HOLE_PAGES, -MAX_HOLE_PAGES, -5]);
  });

  it('never cuts by content at a zero page and cuts at the maximum', async () => {
    const page = (seed: number) => randomPages(seed, 1);
    const quiet = Array.from({ length: 5000 }, (_, i) => i + 1).find(
      (seed) => pageHash(new Uint32Array(page(seed).buffer), 0) >= CUT_RULES.hinted.cutBelow,
    )!;
    const pieces = Array.from({ length: 600 }, (_, i) => (i % 3 === 0 ? data(page(quiet)) : zeros(1)));
    expect(lengths(await run(pieces))).toEqual([256, 256, 88]);
  });

  it('has the mean the format states', async () => {
    const bytes = randomBytes(11, 48 * MIB);
    for (const [layout, low, high] of [
      ['hinted', 480, 640],
      ['foreign', 54, 75],
    ] as const) {
      const chunks = await run([data(bytes)], layout);
      const mean = bytes.length / chunks.length / 1024;
      expect(mean, layout).toBeGreaterThan(low);
      expect(mean, layout).toBeLessThan(high);
    }
  });

  it('finds the same chunks again after an insertion', async () => {
    const before = await run([data(randomPages(21, 3000))], 'foreign');
    const after = await run([data(randomPages(22, 1)), data(randomPages(21, 3000))], 'foreign');
    const ids = new Set(before.map((chunk) => (chunk.type === 'chunk' ? chunk.id : '')));
    const fresh = after.filter((chunk) => chunk.type === 'chunk' && !ids.has(chunk.id));
    expect(fresh.length).toBeLessThanOrEqual(3);
  });

  it('refuses a hint inside a page and impossible lengths', async () => {
    await expect(run([data(new Uint8Array(5)), CUT])).rejects.toThrow(RangeError);
    await expect(run([{ type: 'zeros', lengthBytes: -1 }])).rejects.toThrow(RangeError);
    await expect(run([{ type: 'zeros', lengthBytes: 0.5 }])).rejects.toThrow(RangeError);
  });

  it('stops with the reason of the signal and ends its source', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    let ended = false;
    async function* source(): AsyncGenerator<ImagePiece> {
      try {
        for (let seed = 1; ; seed++) yield data(randomPages(seed, 256));
      } finally {
        ended = true;
      }
    }
    const chunks = chunkImage(source(), { layout: 'hinted', hash, signal: abort.signal });
    await chunks.next();
    abort.abort(reason);
    await expect(collect(chunks)).rejects.toBe(reason);
    expect(ended).toBe(true);
  });
});

describe('pageHash', () => {
  it('changes with every single bit of a page', () => {
    const bytes = randomPages(9, 1);
    const words = new Uint32Array(bytes.buffer);
    const whole = pageHash(words, 0);
    fc.assert(
      fc.property(fc.nat(PAGE_BYTES * 8 - 1), (bit) => {
        bytes[bit >> 3] = bytes[bit >> 3]! ^ (1 << (bit & 7));
        const changed = pageHash(words, 0);
        bytes[bit >> 3] = bytes[bit >> 3]! ^ (1 << (bit & 7));
        expect(changed).not.toBe(whole);
      }),
      { numRuns: 300 },
    );
  });
});
