import { MIB, PAGE_BYTES } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { chunkImage } from './chunk/chunker.ts';
import { openImageCutter, type ImageChunk, type ImageCutter } from './image-cutter.ts';
import { loadHashProvider } from './hash/load-hash-provider.ts';
import { collect, randomBytes, randomPages } from './test-data.ts';

const hash = await loadHashProvider();
const drain = (cutter: ImageCutter): ImageChunk[] => {
  const all: ImageChunk[] = [];
  for (let next = cutter.next(); next !== undefined; next = cutter.next()) {
    all.push(next.type === 'chunk' ? { ...next, bytes: next.bytes.slice() } : next);
  }
  return all;
};

describe('the image cutter', () => {
  it('gives what chunkImage gives when its room is filled directly, at least 1 MiB at a time', async () => {
    const image = randomBytes(31, 11 * MIB + 5);
    image.fill(0, 5 * MIB, 6 * MIB);
    using cutter = await openImageCutter({ layout: 'foreign', hash });
    const chunks: ImageChunk[] = [];
    for (let at = 0; at < image.length;) {
      const room = cutter.room();
      expect(room.length).toBeGreaterThanOrEqual(MIB);
      const count = Math.min(image.length - at, room.length);
      room.set(image.subarray(at, at + count));
      cutter.filled(count);
      at += count;
      chunks.push(...drain(cutter));
    }
    cutter.end();
    chunks.push(...drain(cutter));
    const expected = await collect(chunkImage([{ type: 'data', bytes: image }], { layout: 'foreign', hash }));
    expect(chunks.map((chunk) => (chunk.type === 'chunk' ? chunk.id : chunk.lengthBytes))).toEqual(
      expected.map((chunk) => (chunk.type === 'chunk' ? chunk.id : chunk.lengthBytes)),
    );
  });

  it('keeps two images apart that are cut in turn', async () => {
    const ids = async (seed: number) =>
      (await collect(chunkImage([{ type: 'data', bytes: randomPages(seed, 500) }], { layout: 'foreign', hash }))).map(
        (chunk) => chunk.type === 'chunk' && chunk.id,
      );
    const cutters = [1, 2].map(async (seed) => ({
      image: randomPages(seed, 500),
      cutter: await openImageCutter({ layout: 'foreign', hash }),
      ids: [] as unknown[],
    }));
    const both = await Promise.all(cutters);
    for (let page = 0; page < 500; page += 7) {
      for (const { image, cutter, ids } of both) {
        const part = image.subarray(page * PAGE_BYTES, (page + 7) * PAGE_BYTES);
        cutter.room().set(part);
        cutter.filled(part.length);
        ids.push(...drain(cutter).map((chunk) => chunk.type === 'chunk' && chunk.id));
      }
    }
    for (const [i, { cutter, ids: found }] of both.entries()) {
      cutter.end();
      found.push(...drain(cutter).map((chunk) => chunk.type === 'chunk' && chunk.id));
      cutter[Symbol.dispose]();
      expect(found).toEqual(await ids(i + 1));
    }
  });

  it('refuses more bytes than there was room for', async () => {
    using cutter = await openImageCutter({ layout: 'hinted', hash });
    for (const count of [cutter.room().length + 1, -1, 0.5, Number.NaN]) {
      expect(() => cutter.filled(count)).toThrow(RangeError);
    }
  });
});
