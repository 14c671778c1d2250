import { PAGE_BYTES, type ChunkId, type DecantError } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { viewOf, writeU64 } from '../bytes/bytes-reader.ts';
import { MAX_HOLE_PAGES } from '../chunk/cut-rules.ts';
import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { imageId } from './image-id.ts';
import { createManifestBuilder, encodeManifest, type ManifestStretch } from './manifest-builder.ts';
import { manifestIndexRange, parseManifestHead, verifyManifestPage } from './manifest-head.ts';
import type { ManifestLimits } from './manifest-layout.ts';
import { parseManifest } from './manifest.ts';
import { FACTS, flipBit } from '../test-data.ts';

const hash = await loadHashProvider();
const idOf = (number: number) => (number + 1).toString(16).padStart(64, '0') as ChunkId;
const chunk = (number: number, pages = 3): ManifestStretch => ({
  type: 'chunk',
  id: idOf(number),
  lengthBytes: pages * PAGE_BYTES,
});
const hole = (pages: number): ManifestStretch => ({ type: 'hole', lengthBytes: pages * PAGE_BYTES });
const encode = (stretches: ManifestStretch[]) => encodeManifest(FACTS, stretches, hash);

/** Recomputes page digests and index root, so that only the rule under test can refuse. */
function seal(bytes: Uint8Array): Uint8Array {
  const view = viewOf(bytes);
  const entries = view.getUint32(40, true);
  const index = 256 + entries * 40;
  for (let i = 0; i * 1024 < entries; i++) {
    const from = 256 + i * 40_960;
    bytes.set(hash.blake3(bytes.subarray(from, Math.min(index, from + 40_960))), index + i * 40 + 8);
  }
  bytes.set(hash.blake3(bytes.subarray(index)), 56);
  return bytes;
}

function refusal(bytes: Uint8Array, limits?: ManifestLimits): DecantError {
  try {
    parseManifest(bytes, hash, limits);
  } catch (error) {
    return error as DecantError;
  }
  throw new Error('it was accepted');
}

const small = encode([chunk(1), hole(20), chunk(2, 5), chunk(1), chunk(3, 1)]);
const large = encode(Array.from({ length: 2500 }, (_, i) => (i % 7 === 3 ? hole(17) : chunk(i % 900, 2))));

describe('a manifest', () => {
  it('comes back as it was built', () => {
    const stretch = fc.oneof(
      fc.record({ number: fc.nat(50), hole: fc.constant(0) }),
      fc.record({ number: fc.constant(0), hole: fc.integer({ min: 1, max: 3 * MAX_HOLE_PAGES }) }),
    );
    fc.assert(
      fc.property(fc.array(stretch, { maxLength: 60 }), (plan) => {
        // The length of a chunk follows from its number: one id has one length.
        const builder = createManifestBuilder(FACTS, hash);
        const expected: (string | null)[] = [];
        for (const { number, hole: pages } of plan) {
          builder.add(pages > 0 ? hole(pages) : chunk(number, (number % 9) + 1));
          for (let i = 0; i < (pages > 0 ? 0 : (number % 9) + 1); i++) expected.push(idOf(number));
          if (pages > 0) expected.push(`hole ${pages}`);
        }
        const manifest = builder.finish();
        const actual: (string | null)[] = [];
        let holePages = 0;
        for (let i = 0; i <= manifest.entryCount; i++) {
          const entry = i < manifest.entryCount ? manifest.entry(i) : undefined;
          if (entry?.id === null) {
            holePages += entry.pages;
            continue;
          }
          if (holePages > 0) actual.push(`hole ${holePages}`);
          holePages = 0;
          for (let page = 0; page < (entry?.pages ?? 0); page++) actual.push(entry!.id);
        }
        const merged: (string | null)[] = [];
        for (const item of expected) {
          const last = merged.at(-1);
          if (item?.startsWith('hole') && last?.startsWith('hole')) {
            merged[merged.length - 1] = `hole ${Number(last.slice(5)) + Number(item.slice(5))}`;
          } else merged.push(item);
        }
        expect(actual).toEqual(merged);
        expect(manifest.id).toBe(imageId(manifest.bytes.subarray(0, 256), hash));
        expect(parseManifest(manifest.bytes, hash).id).toBe(manifest.id);
      }),
      { numRuns: 100 },
    );
  });

  it('answers for pages, ids and sums', () => {
    const manifest = parseManifest(small, hash);
    expect(manifest).toMatchObject({ ...FACTS, virtualBytes: 32 * 4096, contentBytes: 12 * 4096, entryCount: 5 });
    expect(manifest).toMatchObject({ chunkCount: 3, chunkBytes: 9 * 4096, pageCount: 1, manifestBytes: small.length });
    expect([0, 2, 3, 22, 23, 27, 28, 31].map((page) => manifest.find(page))).toEqual([0, 0, 1, 1, 2, 2, 3, 4]);
    expect(() => manifest.find(32)).toThrow(RangeError);
    expect(() => manifest.entry(5)).toThrow(RangeError);
    expect(manifest.entry(2)).toEqual({ id: idOf(2), firstPage: 23, pages: 5 });
    expect(manifest.indexOf(idOf(1))).toBe(0);
    expect(manifest.indexOf(idOf(3))).toBe(4);
    expect(manifest.indexOf(idOf(9))).toBeUndefined();
    expect([...manifest.chunkIds()]).toEqual([idOf(1), idOf(2), idOf(3)]);
    expect([...manifest.chunks()].map(({ entry }) => entry)).toEqual([0, 2, 4]);
  });

  it('finds every page by search as by walking', () => {
    const manifest = parseManifest(large, hash);
    for (let i = 0; i < manifest.entryCount; i++) {
      const { firstPage, pages } = manifest.entry(i);
      expect(manifest.find(firstPage)).toBe(i);
      expect(manifest.find(firstPage + pages - 1)).toBe(i);
    }
    expect(new Set(manifest.chunkIds()).size).toBe(manifest.chunkCount);
  });

  it('may be empty', () => {
    const manifest = parseManifest(encode([]), hash);
    expect(manifest).toMatchObject({ virtualBytes: 0, entryCount: 0, pageCount: 0 });
    expect(manifest.bytes).toHaveLength(256);
  });

  it('is verified page by page from header and index alone', () => {
    const header = large.subarray(0, 256);
    const { offset, lengthBytes } = manifestIndexRange(header);
    const head = parseManifestHead(header, large.subarray(offset, offset + lengthBytes), hash);
    const whole = parseManifest(large, hash);
    expect(head.id).toBe(whole.id);
    expect(head.pageCount).toBe(3);
    let entry = 0;
    for (let i = 0; i < head.pageCount; i++) {
      const range = head.pageRange(i);
      const bytes = large.subarray(range.offset, range.offset + range.lengthBytes);
      for (const one of verifyManifestPage(head, i, bytes, hash)) {
        expect(one).toEqual(whole.entry(entry++));
        expect(head.pageOf(one.firstPage)).toBe(i);
      }
      expect(() => verifyManifestPage(head, i, flipBit(bytes, 77), hash)).toThrow(/digest in the index/);
      expect(() => verifyManifestPage(head, i, bytes.subarray(40), hash)).toThrow(/bytes, not/);
    }
    expect(entry).toBe(whole.entryCount);
    const index = large.slice(offset);
    expect(() => parseManifestHead(header, index.subarray(40), hash)).toThrow(/the index has/);
    expect(() => parseManifestHead(header, flipBit(index, 9), hash)).toThrow(/digest in the header/);
  });
});

describe('the manifest builder', () => {
  it('joins holes and splits long ones', () => {
    const builder = createManifestBuilder(FACTS, hash);
    for (const pages of [3, MAX_HOLE_PAGES, 1]) builder.add(hole(pages));
    const manifest = builder.finish();
    expect([0, 1].map((i) => manifest.entry(i).pages)).toEqual([MAX_HOLE_PAGES, 4]);
  });

  it('refuses lengths that are not pages and images beyond the limits', () => {
    const builder = createManifestBuilder(FACTS, hash, { maxBytes: 400, maxVirtualBytes: 100 * 4096 });
    expect(() => builder.add({ type: 'hole', lengthBytes: 0 })).toThrow(RangeError);
    expect(() => builder.add({ type: 'hole', lengthBytes: 4097 })).toThrow(RangeError);
    expect(() => builder.add(chunk(1, 1025))).toThrow(RangeError);
    for (const number of [1, 2]) builder.add(chunk(number));
    expect(() => builder.add(chunk(3))).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
    const wide = createManifestBuilder(FACTS, hash, { maxVirtualBytes: 100 * 4096 });
    wide.add(hole(101));
    expect(() => wide.finish()).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
  });

  it('refuses one chunk with two lengths', () => {
    const builder = createManifestBuilder(FACTS, hash);
    builder.add(chunk(1, 3));
    builder.add(chunk(1, 4));
    expect(() => builder.finish()).toThrow(/two lengths/);
  });
});

describe('parseManifest', () => {
  const edit = (change: (bytes: Uint8Array, view: DataView) => void, base = small) => {
    const bytes = base.slice();
    change(bytes, viewOf(bytes));
    return seal(bytes);
  };
  const index = 256 + 5 * 40;
  const cases: [string, number, (bytes: Uint8Array, view: DataView) => void, RegExp][] = [
    ['magic', 3, (bytes) => (bytes[3] = 0), /DCNTMFT1/],
    ['version', 8, (_, view) => view.setUint32(8, 2, true), /version/],
    ['flags', 12, (_, view) => view.setUint32(12, 1, true), /flags/],
    ['digest', 16, (bytes) => (bytes[16] = 2), /BLAKE3/],
    ['format', 17, (bytes) => (bytes[17] = 0), /format/],
    ['format', 17, (bytes) => (bytes[17] = 4), /format/],
    ['layout', 18, (bytes) => (bytes[18] = 3), /layout/],
    ['architecture', 19, (bytes) => (bytes[19] = 3), /architecture/],
    ['reserved word', 20, (bytes) => (bytes[23] = 1), /reserved/],
    ['virtual size off a page', 24, (_, view) => writeU64(view, 24, 32 * 4096 + 1), /page boundary/],
    ['virtual size beyond numbers', 24, (_, view) => view.setUint32(28, 0xffffffff, true), /larger than/],
    ['virtual size too small', 256, (_, view) => writeU64(view, 24, 31 * 4096), /ends at image page 32/],
    ['content size', 32, (_, view) => writeU64(view, 32, 11 * 4096), /content size/],
    ['content size off a page', 32, (_, view) => writeU64(view, 32, 11), /content size/],
    ['content above virtual', 32, (_, view) => writeU64(view, 32, 33 * 4096), /content size/],
    ['entries beyond numbers', 40, (_, view) => view.setUint32(44, 0xffffffff, true), /more entries/],
    ['entries per page', 48, (_, view) => view.setUint32(48, 512, true), /entries per page/],
    ['page size', 52, (_, view) => view.setUint32(52, 8192, true), /page size/],
    ['padding', 255, (bytes) => (bytes[255] = 1), /reserved byte/],
    ['chunk of no pages', 256 + 32, (_, view) => view.setUint32(256 + 32, 0, true), /0 pages/],
    ['chunk of 1,025 pages', 256 + 32, (_, view) => view.setUint32(256 + 32, 1025, true), /1025 pages/],
    ['hole too long', 296 + 32, (_, view) => view.setUint32(296 + 32, MAX_HOLE_PAGES + 1, true), /pages/],
    ['entry flags', 256 + 36, (_, view) => view.setUint32(256 + 36, 2, true), /unknown flags/],
    ['hole with an id', 296 + 31, (bytes) => (bytes[296 + 31] = 1), /hole has a chunk id/],
    ['chunk without an id', 256, (bytes) => bytes.fill(0, 256, 288), /no id/],
    ['first page in the index', index, (_, view) => writeU64(view, index, 1), /ascend/],
    ['one chunk with two lengths', 376 + 32, (_, view) => view.setUint32(376 + 32, 4, true), /two lengths/],
  ];
  it.each(cases)('refuses a wrong %s at byte %i', (_, offset, change, message) => {
    const error = refusal(edit(change));
    expect(error).toMatchObject({ code: 'CAS_MANIFEST_INVALID', details: { offset } });
    expect(error.message).toMatch(message);
  });

  it('refuses holes that adjoin but are not full', () => {
    const bytes = edit((all, view) => {
      all.copyWithin(336, 296, 336);
      view.setUint32(328, 10, true);
      view.setUint32(368, 15, true);
      writeU64(view, 32, 7 * 4096);
    });
    expect(refusal(bytes).message).toMatch(/hole follows a hole/);
  });

  it('refuses pages whose entries do not meet the next page', () => {
    const bytes = edit((_, view) => view.setUint32(256 + 3 * 40 + 32, 18, true), large);
    expect(refusal(bytes).message).toMatch(/ends at image page/);
  });

  it('refuses digests that do not fit', () => {
    expect(refusal(flipBit(small, (index + 10) * 8))).toMatchObject({ details: { offset: 56 } });
    const page = small.slice();
    page[256] = page[256]! ^ 1;
    expect(refusal(page)).toMatchObject({ details: { offset: 256 } });
  });

  it('refuses every truncation and what follows', () => {
    for (let length = 0; length < small.length; length += 13) {
      expect(refusal(small.subarray(0, length)).code).toBe('CAS_MANIFEST_INVALID');
    }
    expect(refusal(new Uint8Array([...small, 0])).code).toBe('CAS_MANIFEST_INVALID');
  });

  it('keeps to the limits before it allocates', () => {
    expect(refusal(small, { maxBytes: small.length - 1 }).message).toMatch(/allowed/);
    expect(refusal(small, { maxVirtualBytes: 31 * 4096 })).toMatchObject({ details: { offset: 24 } });
    const huge = small.slice();
    writeU64(viewOf(huge), 24, 2 ** 43);
    writeU64(viewOf(huge), 40, 2 ** 31);
    expect(refusal(huge)).toMatchObject({ details: { offset: 40 } });
  });

  it('finds any flipped bit, by its rules or by the id', () => {
    const { id } = parseManifest(small, hash);
    for (let bit = 0; bit < small.length * 8; bit++) {
      let other: string | undefined;
      try {
        other = parseManifest(flipBit(small, bit), hash).id;
      } catch (error) {
        expect(error).toMatchObject({ code: 'CAS_MANIFEST_INVALID' });
      }
      expect(other).not.toBe(id);
    }
  });

  it('answers any mutation with a typed error or a manifest that is its own encoding', () => {
    const word = fc.oneof(fc.constantFrom(0, 1, 0xffffffff, 0x7fffffff, 1024, 1025), fc.nat());
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(small.length / 4 - 1), word), { maxLength: 4 }), (writes) => {
        const bytes = small.slice();
        for (const [at, value] of writes) viewOf(bytes).setUint32(at * 4, value, true);
        if (viewOf(bytes).getUint32(40, true) === 5 && viewOf(bytes).getUint32(44, true) === 0) seal(bytes);
        try {
          const manifest = parseManifest(bytes, hash);
          const stretches = Array.from({ length: manifest.entryCount }, (_, i): ManifestStretch => {
            const { id, pages } = manifest.entry(i);
            const lengthBytes = pages * PAGE_BYTES;
            return id === null ? { type: 'hole', lengthBytes } : { type: 'chunk', id, lengthBytes };
          });
          expect(encodeManifest(manifest, stretches, hash)).toEqual(bytes);
        } catch (error) {
          expect(error).toMatchObject({ code: 'CAS_MANIFEST_INVALID' });
        }
      }),
      { numRuns: 1500 },
    );
  });
});
