import { isDecantError, toHex, type ChunkFrame, type ChunkId } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { openChunk } from './chunk/open-chunk.ts';
import { loadHashProvider } from './hash/load-hash-provider.ts';
import { createImageReader } from './image/image-reader.ts';
import { createMemoryRandomAccess } from './image/memory-random-access.ts';
import { parseManifestHead, verifyManifestPage } from './manifest/manifest-head.ts';
import { MANIFEST_HEADER_BYTES } from './manifest/manifest-layout.ts';
import { parseManifest } from './manifest/manifest.ts';
import { createZstdCodec } from './node/zstd-codec.ts';
import { parseLocator } from './pack/locator.ts';
import { createPackSource } from './pack/pack-source.ts';
import { packFrame, readPackTable } from './pack/pack-table.ts';
import { packsOf } from './pack/test-packs.ts';
import { chunkOf, flipBit, randomBytes, randomPages } from './test-data.ts';

const hash = await loadHashProvider();
const codec = createZstdCodec();

/** Chunks of one to three pages, every other one compressible; 1,100 of them, so that the manifest has two pages. */
const plains = Array.from({ length: 1100 }, (_, i) => {
  const plain = randomPages(i + 1, 1 + (i % 3));
  if (i % 2 === 0) plain.fill(i & 255, 300);
  return plain;
});
const frames: ChunkFrame[] = plains.map((plain) => ({
  id: chunkOf(plain, hash).id,
  plainBytes: plain.length,
  ...codec.encode(plain),
}));
const plainOf = new Map<ChunkId, Uint8Array>(frames.map(({ id }, i) => [id, plains[i]!]));
const { manifest, locator, packs } = packsOf(frames, hash, 275);
const codes = (error: unknown, ...expected: string[]) => isDecantError(error) && expected.includes(error.code);

/** Seeded numbers below `limit`. */
function* places(seed: number, count: number, limit: number): Generator<number> {
  const view = new DataView(randomBytes(seed, count * 4).buffer);
  for (let i = 0; i < count; i++) yield view.getUint32(i * 4, true) % limit;
}

/**
 * What the flips did. A flip is found when it is refused, or when it made a thing of another name than the one asked for;
 * it is harmless when what is read is right all the same (a bit that a decoder ignores). Nothing else may happen.
 */
const total = { flips: 0, found: 0, harmless: 0 };
function count(outcome: 'found' | 'harmless'): void {
  total.flips++;
  total[outcome]++;
}

describe('random bit flips', () => {
  it('4,000 in the frames of packs: no wrong byte comes out, and the name of the pack does not fit', async () => {
    for (const place of places(1, 4000, 2 ** 31)) {
      const pack = packs[place % packs.length]!;
      const table = await readPackTable(createMemoryRandomAccess(pack), { hash });
      const row = table.row((place >> 2) % table.count);
      const frame = await packFrame(createMemoryRandomAccess(pack), row);
      const damaged = { ...frame, stored: flipBit(frame.stored, place % (8 * frame.stored.length)) };
      expect(toHex(hash.blake3(damaged.stored))).not.toBe(toHex(hash.blake3(frame.stored)));
      try {
        expect(Buffer.compare(openChunk(damaged, frame, { hash, codec }), plainOf.get(frame.id)!)).toBe(0);
        expect(frame.encoding).toBe('zstd');
        count('harmless');
      } catch (error) {
        if (!codes(error, 'CAS_CHUNK_MISMATCH', 'CAS_ZSTD_INVALID')) throw error;
        count('found');
      }
    }
    // Padding and bits that a decoder ignores are few.
    expect(total.harmless).toBeLessThan(40);
  });

  it('2,000 in heads, tables and footers of packs: all are refused', async () => {
    const small = packsOf(frames.slice(0, 40), hash, 20).packs;
    const around = 48 + 20 * 56 + 48;
    for (const place of places(2, 2000, 2 ** 31)) {
      const pack = small[place % small.length]!;
      const at = (place >> 2) % (around * 8);
      const bit = at < 48 * 8 ? at : pack.length * 8 - (around * 8 - at);
      const read = readPackTable(createMemoryRandomAccess(flipBit(pack, bit)), { hash });
      await expect(read).rejects.toMatchObject({ code: 'CAS_PACK_INVALID' });
      count('found');
    }
  });

  it('3,000 in headers, pages and indexes of manifests: refused, or another image than the one asked for', () => {
    for (const bit of [...places(3, 1000, MANIFEST_HEADER_BYTES * 8), ...places(4, 2000, manifest.bytes.length * 8)]) {
      try {
        expect(parseManifest(flipBit(manifest.bytes, bit), hash).id).not.toBe(manifest.id);
        expect(bit).toBeLessThan(MANIFEST_HEADER_BYTES * 8);
      } catch (error) {
        if (!codes(error, 'CAS_MANIFEST_INVALID')) throw error;
      }
      count('found');
    }
  });

  it('1,500 in single pages of a manifest and its index: all are refused', () => {
    const indexAt = manifest.manifestBytes - manifest.pageCount * 40;
    const header = manifest.bytes.subarray(0, MANIFEST_HEADER_BYTES);
    const head = parseManifestHead(header, manifest.bytes.subarray(indexAt), hash);
    const refused = expect.objectContaining({ code: 'CAS_MANIFEST_INVALID' }) as Error;
    for (const place of places(5, 1500, 2 ** 31)) {
      if (place % 3 === 0) {
        const index = flipBit(manifest.bytes.subarray(indexAt), (place >> 2) % (manifest.pageCount * 40 * 8));
        expect(() => parseManifestHead(header, index, hash)).toThrow(refused);
      } else {
        const page = (place >> 2) % manifest.pageCount;
        const { offset, lengthBytes } = head.pageRange(page);
        const bytes = manifest.bytes.subarray(offset, offset + lengthBytes);
        expect(() => verifyManifestPage(head, page, flipBit(bytes, (place >> 3) % (lengthBytes * 8)), hash)).toThrow(
          refused,
        );
      }
      count('found');
    }
  });

  it('2,000 in locators: refused, not read, or what is read is right', async () => {
    const packOf = new Map(locator.packs.map(({ key }, i) => [key, packs[i]!]));
    const recordsAt = locator.bytes.length - locator.recordCount * 24;
    for (const bit of [...places(6, 500, recordsAt * 8), ...places(7, 1500, locator.bytes.length * 8)]) {
      try {
        const damaged = parseLocator(flipBit(locator.bytes, bit));
        const readRange = async (pack: number, offset: number, lengthBytes: number) =>
          packOf.get(damaged.packs[pack]!.key)?.subarray(offset, offset + lengthBytes) ?? new Uint8Array(0);
        const source = createPackSource({ manifest, locator: damaged, readRange });
        const reader = createImageReader(manifest, source, { hash, codec });
        // The chunk whose record was changed, or the first of a pack whose name was.
        const entry = bit < recordsAt * 8 ? (bit % packs.length) * 275 : Math.floor((bit / 8 - recordsAt) / 24);
        const { firstPage, pages } = manifest.entry(entry);
        const bytes = await reader.read(firstPage * 4096, pages * 4096);
        expect(Buffer.compare(bytes, plains[entry]!)).toBe(0);
        count('harmless');
      } catch (error) {
        const expected = ['LOCATOR_INVALID', 'CHUNK_MISSING', 'CHUNK_MISMATCH', 'ZSTD_INVALID', 'PACK_INVALID'];
        if (!codes(error, ...expected.map((code) => `CAS_${code}`))) throw error;
        count('found');
      }
    }
  });

  it('were more than 10,000, and not one was missed', () => {
    expect(total.flips).toBe(12_500);
    expect(total.found + total.harmless).toBe(total.flips);
    console.log(`${total.flips} bit flips: ${total.found} found, ${total.harmless} without effect on what is read`);
  });
});
