import {
  concatBytes,
  PAGE_BYTES,
  type ChunkFrame,
  type ChunkId,
  type ChunkSource,
  type DecantError,
  type ImageId,
} from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { createMemoryChunkStore } from '../store/chunk-store.ts';
import { chunkImage } from '../chunk/chunker.ts';
import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { createImageReader } from './image-reader.ts';
import { encodeLocator, parseLocator, type LocatorRecord } from '../pack/locator.ts';
import { createManifestBuilder } from '../manifest/manifest-builder.ts';
import { createZstdCodec } from '../node/zstd-codec.ts';
import { createPackBuilder } from '../pack-builder.ts';
import { createPackSource } from '../pack/pack-source.ts';
import { FACTS, randomPages } from '../test-data.ts';

const hash = await loadHashProvider();
const codec = createZstdCodec();

/** An image in packs of a few chunks, its manifest, its locator and a record of what is asked of the packs. */
async function publish(image: Uint8Array, chunksPerPack = 3) {
  const builder = createManifestBuilder({ ...FACTS, layout: 'foreign' }, hash);
  const packs: Uint8Array[] = [];
  const places = new Map<ChunkId, LocatorRecord>();
  let pack = createPackBuilder({ hash, maxChunks: chunksPerPack });
  let parts: Uint8Array[] = [];
  const close = () => {
    if (pack.count === 0) return;
    const { bytes, table } = pack.finish();
    for (const { id, ...row } of table.rows()) places.set(id, { pack: packs.length, ...row });
    packs.push(concatBytes([...parts, bytes]));
    pack = createPackBuilder({ hash, maxChunks: chunksPerPack });
    parts = [];
  };
  const seen = new Set<ChunkId>();
  for await (const stretch of chunkImage([{ type: 'data', bytes: image }], { layout: 'foreign', hash })) {
    builder.add(stretch);
    if (stretch.type === 'hole' || seen.has(stretch.id)) continue;
    seen.add(stretch.id);
    const frame = { id: stretch.id, plainBytes: stretch.bytes.length, ...codec.encode(stretch.bytes.slice()) };
    if (!pack.fits(frame.stored.length)) close();
    parts.push(...pack.add(frame));
  }
  close();
  const manifest = builder.finish();
  const records = Array.from({ length: manifest.entryCount }, (_, i) => {
    const { id } = manifest.entry(i);
    return id === null ? null : places.get(id)!;
  });
  const encoded = { imageId: manifest.id, packs: packs.map((_, i) => ({ key: `packs/${i}` })), records };
  const requests: { pack: number; offset: number; lengthBytes: number }[] = [];
  const readRange = async (index: number, offset: number, lengthBytes: number) => {
    requests.push({ pack: index, offset, lengthBytes });
    return packs[index]!.subarray(offset, offset + lengthBytes);
  };
  return { manifest, locator: parseLocator(encodeLocator(encoded)), encoded, packs, requests, readRange };
}

function mixedImage(): Uint8Array {
  const image = new Uint8Array(400 * PAGE_BYTES);
  image.set(randomPages(1, 100));
  image.set(randomPages(2, 90), 130 * PAGE_BYTES);
  image.set(randomPages(1, 100), 300 * PAGE_BYTES);
  image.fill(3, 220 * PAGE_BYTES, 260 * PAGE_BYTES);
  return image;
}

const image = mixedImage();
const published = await publish(image);

describe('an image reader over packs', () => {
  it('gives the bytes of any range', async () => {
    const reader = createImageReader(published.manifest, createPackSource(published), { hash, codec });
    expect(reader.sizeBytes).toBe(image.length);
    await fc.assert(
      fc.asyncProperty(fc.nat(image.length), fc.nat(300_000), async (offset, length) => {
        const lengthBytes = Math.min(length, image.length - offset);
        const bytes = await reader.read(offset, lengthBytes);
        expect(Buffer.compare(bytes, image.subarray(offset, offset + lengthBytes))).toBe(0);
      }),
      { numRuns: 60 },
    );
    expect(Buffer.compare(await reader.read(0, image.length), image)).toBe(0);
    for (const [offset, length] of [
      [-1, 1],
      [0, image.length + 1],
      [image.length, 1],
      [0.5, 1],
    ] as const) {
      await expect(reader.read(offset, length)).rejects.toThrow(RangeError);
    }
  });

  it('asks once for what it remembers or the cache has, and gives holes without asking', async () => {
    published.requests.length = 0;
    const cache = createMemoryChunkStore();
    const reader = createImageReader(published.manifest, createPackSource(published), { hash, codec, cache });
    await reader.read(100 * PAGE_BYTES + 5, 20 * PAGE_BYTES);
    expect(published.requests).toHaveLength(0);
    await reader.read(0, 10);
    await reader.read(0, 10);
    expect(published.requests).toHaveLength(1);
    const second = createImageReader(published.manifest, createPackSource(published), { hash, codec, cache });
    expect(await second.read(0, 10)).toEqual(image.slice(0, 10));
    expect(published.requests).toHaveLength(1);
  });

  it('fetches a chunk once for any number of reads at once', async () => {
    published.requests.length = 0;
    const reader = createImageReader(published.manifest, createPackSource(published), { hash, codec });
    const answers = await Promise.all(Array.from({ length: 40 }, () => reader.read(0, image.length)));
    for (const answer of answers) expect(Buffer.compare(answer, image)).toBe(0);
    const asked = published.requests.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    const stored = published.packs.reduce((sum, pack) => sum + pack.length, 0);
    expect(asked).toBeLessThanOrEqual(stored);
  });

  it('survives a cache that keeps nothing', async () => {
    const full = { ...createMemoryChunkStore(), put: () => Promise.reject(new Error('the disk is full')) };
    const reader = createImageReader(published.manifest, createPackSource(published), { hash, codec, cache: full });
    expect(await reader.read(0, 10)).toEqual(image.slice(0, 10));
  });

  it('gives no byte of a damaged, foreign or missing chunk', async () => {
    const [first, other] = [...published.manifest.chunkIds()];
    const source = createPackSource(published);
    const through = (change: (frame: ChunkFrame) => ChunkFrame | undefined): ChunkSource => ({
      has: (ids) => source.has(ids),
      async *get(ids) {
        for await (const frame of source.get(ids)) {
          const changed = change(frame);
          if (changed !== undefined) yield changed;
        }
      },
    });
    const readWith = (change: (frame: ChunkFrame) => ChunkFrame | undefined) =>
      createImageReader(published.manifest, through(change), { hash, codec }).read(0, 10);
    const cases: [(frame: ChunkFrame) => ChunkFrame | undefined, string][] = [
      [(frame) => ({ ...frame, stored: frame.stored.map((byte, i) => (i === 4000 ? byte ^ 1 : byte)) }), 'MISMATCH'],
      [(frame) => ({ ...frame, plainBytes: frame.plainBytes + 4096 }), 'MISMATCH'],
      [() => undefined, 'MISSING'],
      [(frame) => ({ ...frame, id: other! }), 'MISSING'],
    ];
    expect(first).not.toBe(other);
    for (const [change, code] of cases) {
      await expect(readWith(change)).rejects.toMatchObject({ code: `CAS_CHUNK_${code}` });
    }
  });

  it('stops with the reason of the signal', async () => {
    const reason = new Error('enough');
    const reader = createImageReader(published.manifest, createPackSource(published), { hash, codec });
    await expect(reader.read(0, 1, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

describe('createPackSource', () => {
  const drain = async (source: ChunkSource, ids: ChunkId[]) => {
    const frames: ChunkFrame[] = [];
    for await (const frame of source.get(ids)) frames.push(frame);
    return frames;
  };

  it('reads neighbours in one request and gives every chunk once', async () => {
    const one = await publish(image, 1000);
    const ids = [...one.manifest.chunkIds()];
    const frames = await drain(createPackSource({ ...one, coalesceBytes: 2 ** 26 }), [...ids.toReversed(), ...ids]);
    expect(frames.map((frame) => frame.id)).toEqual(ids);
    expect(one.requests).toHaveLength(1);
    one.requests.length = 0;
    await drain(createPackSource({ ...one, coalesceBytes: 300_000 }), ids);
    expect(one.requests.length).toBeGreaterThan(2);
    for (const [i, { lengthBytes }] of one.requests.entries()) {
      // A request grows until it is large enough, and a chunk here has at most 256 KiB.
      if (i < one.requests.length - 1) expect(lengthBytes).toBeGreaterThanOrEqual(300_000);
      expect(lengthBytes).toBeLessThan(300_000 + 256 * 1024);
    }
    one.requests.length = 0;
    await drain(createPackSource({ ...one, coalesceBytes: 1 }), ids);
    expect(one.requests).toHaveLength(ids.length);
  });

  it('does not read across a gap above 64 KiB', async () => {
    const one = await publish(image, 1000);
    const ids = [...one.manifest.chunks()];
    const last = ids.at(-1)!;
    await drain(createPackSource(one), [ids[0]!.id, last.id]);
    expect(one.requests).toHaveLength(2);
    const total = one.requests.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    expect(total).toBeLessThanOrEqual(ids[0]!.plainBytes + last.plainBytes);
  });

  it('knows what it has', async () => {
    const [first] = [...published.manifest.chunkIds()];
    const stranger = 'f'.repeat(64) as ChunkId;
    expect(await createPackSource(published).has([first!, stranger])).toEqual(new Set([first]));
    await expect(drain(createPackSource(published), [stranger])).rejects.toMatchObject({ code: 'CAS_CHUNK_MISSING' });
  });

  it('refuses short answers, other locators and encrypted packs', async () => {
    const [first] = [...published.manifest.chunkIds()];
    const short = createPackSource({ ...published, readRange: async () => new Uint8Array(3) });
    await expect(drain(short, [first!])).rejects.toMatchObject({ code: 'CAS_CHUNK_MISSING' });
    const code = (locator: Parameters<typeof encodeLocator>[0]) => {
      try {
        createPackSource({ ...published, locator: parseLocator(encodeLocator(locator)) });
      } catch (error) {
        return (error as DecantError).code;
      }
      return undefined;
    };
    const { encoded } = published;
    expect(code(encoded)).toBeUndefined();
    expect(code({ ...encoded, imageId: `cas-v1:${'0'.repeat(64)}` as ImageId })).toBe('CAS_LOCATOR_INVALID');
    expect(code({ ...encoded, records: encoded.records.slice(1) })).toBe('CAS_LOCATOR_INVALID');
    const encrypted = encoded.packs.map((pack) => ({ ...pack, nonce: new Uint8Array(32).fill(1) }));
    expect(code({ ...encoded, packs: encrypted })).toBe('CAS_PACK_INVALID');
    const holes = encoded.records.map((_, i) => (i === 0 ? null : encoded.records[i]!));
    const wrong = createPackSource({
      ...published,
      locator: parseLocator(encodeLocator({ ...encoded, records: holes })),
    });
    await expect(drain(wrong, [first!])).rejects.toMatchObject({ code: 'CAS_LOCATOR_INVALID' });
    const shorter = encoded.records.map((record, i) =>
      i > 0 || record === null
        ? record
        : { ...record, storedBytes: 100, plainBytes: PAGE_BYTES, encoding: 'zstd' as const },
    );
    const lying = createPackSource({
      ...published,
      locator: parseLocator(encodeLocator({ ...encoded, records: shorter })),
    });
    await expect(drain(lying, [first!])).rejects.toMatchObject({ code: 'CAS_LOCATOR_INVALID' });
  });
});
