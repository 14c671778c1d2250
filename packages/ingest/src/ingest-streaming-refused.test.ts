import { PAGE_BYTES, type ChunkFrame, type ObjectStore } from '@decant/core';
import { zstdCompressSync } from 'node:zlib';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Admission, IngestContext } from './admission.ts';
import { ingestStreaming } from './ingest-streaming.ts';
import {
  imageOf,
  noise,
  openBench,
  packOf,
  sampleImage,
  stageImage,
  type Bench,
  type TestImage,
} from './staging.fixture.ts';

let bench: Bench;
beforeEach(async () => {
  bench = await openBench();
});
afterEach(() => bench[Symbol.asyncDispose]());

const code = (expected: string) => expect.objectContaining({ code: expected });
const admit = (context: IngestContext, image: TestImage) =>
  ingestStreaming({ virtualBytes: image.manifest.virtualBytes }, context);

const sample = () => sampleImage(bench);

describe('what is refused', () => {
  let context: IngestContext;
  let image: TestImage;
  beforeEach(() => {
    context = bench.context();
    image = sample();
  });
  afterEach(async () => {
    // Configurations are content-addressed and unreachable without an image; nothing else may have been written.
    const left = (await bench.restingKeys()).filter((key) => !key.includes('/configs/') && !key.includes('/acme-2/'));
    expect(left).toEqual([]);
  });

  const replaced = (change: (frame: ChunkFrame) => Partial<ChunkFrame>, at = 1): ChunkFrame[] =>
    image.frames.map((frame, i) => (i === at ? { ...frame, ...change(frame) } : frame));

  it('one flipped byte in any chunk', async () => {
    for (const at of [0, 1, 2]) {
      const frames = replaced(({ stored }) => {
        const copy = stored.slice();
        copy[copy.length >> 1]! ^= 1;
        return { stored: copy };
      }, at);
      await stageImage(context, image, [packOf(bench.hash, frames)]);
      await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
    }
  });

  it('a chunk of another length than the manifest says', async () => {
    const frames = replaced(() => ({ stored: noise(2, 15), plainBytes: 15 * PAGE_BYTES, encoding: 'raw' }));
    await stageImage(context, image, [packOf(bench.hash, frames)]);
    await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
  });

  it('another length of a chunk that the namespace has already, and that is therefore not read', async () => {
    const [frame] = image.frames;
    const { id, encoding, plainBytes, stored } = frame!;
    const row = { id, encoding, plainBytes: plainBytes - PAGE_BYTES, storedBytes: stored.length, offset: 48 };
    const admitted = { id: image.manifest.id, packs: [{ key: 'ns/acme/packs/p', sizeBytes: 1, chunks: [row] }] };
    bench.commit('acme', admitted as unknown as Admission);
    await stageImage(context, image, [packOf(bench.hash, image.frames.slice(1))]);
    await expect(admit({ ...context, findAdmitted: async () => undefined }, image)).rejects.toMatchObject({
      code: 'INGEST_REFUSED',
      details: { chunk: id },
    });
  });

  it('a bomb: a frame that says less than it decompresses to', async () => {
    const bomb = zstdCompressSync(new Uint8Array(64 * 1024 * 1024));
    const frames = replaced(() => ({ stored: bomb, encoding: 'zstd' }));
    await stageImage(context, image, [packOf(bench.hash, frames)]);
    await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
  });

  it('a frame that is no zstd', async () => {
    const frames = replaced(() => ({ stored: noise(5, 1), encoding: 'zstd' }));
    await stageImage(context, image, [packOf(bench.hash, frames)]);
    await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
  });

  it('a chunk that is not in the manifest', async () => {
    const stray = imageOf(bench, [noise(77, 4)]).frames;
    await stageImage(context, image, [packOf(bench.hash, [...image.frames, ...stray])]);
    await expect(admit(context, image)).rejects.toMatchObject({
      code: 'INGEST_REFUSED',
      details: { chunk: stray[0]!.id },
    });
  });

  it('a chunk that is staged twice, in one pack or two', async () => {
    const twice = [packOf(bench.hash, [...image.frames, image.frames[0]!])];
    await stageImage(context, image, twice);
    await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
    await stageImage(context, image, [packOf(bench.hash, image.frames), packOf(bench.hash, image.frames.slice(2))]);
    await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
  });

  it('a missing chunk, also when another namespace has it: a hash is not possession', async () => {
    const other = bench.context('acme-2', 'build-9');
    await stageImage(other, image);
    bench.commit('acme-2', await admit(other, image));
    await stageImage(context, image, [packOf(bench.hash, image.frames.slice(0, 2))]);
    await expect(admit(context, image)).rejects.toMatchObject({
      code: 'INGEST_CHUNK_UNREACHABLE',
      details: { chunk: image.frames[2]!.id },
    });
  });

  it('a manifest that was not uploaded, is no manifest, or is larger than allowed', async () => {
    await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
    const key = `${context.stagingPrefix}/manifest`;
    for (const bytes of [new Uint8Array(0), noise(3, 1), image.manifest.bytes.subarray(0, -1)]) {
      await bench.store.put(key, bytes);
      await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
    }
    const huge: ObjectStore = {
      ...bench.store,
      head: async (name) => ({ key: name, sizeBytes: 65 * 1024 * 1024 }),
      get: () => Promise.reject(new Error('it was read')),
    };
    await expect(admit({ ...context, store: huge }, image)).rejects.toEqual(code('INGEST_REFUSED'));
  });

  it('any manifest with one flipped bit', async () => {
    const { bytes } = image.manifest;
    await stageImage(context, image);
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length * 8 - 1), async (bit) => {
        const copy = bytes.slice();
        copy[bit >> 3]! ^= 1 << (bit & 7);
        await bench.store.put(`${context.stagingPrefix}/manifest`, copy);
        await expect(admit(context, image)).rejects.toMatchObject({
          code: expect.stringMatching(/^(INGEST_REFUSED|INGEST_CHUNK_UNREACHABLE|ROOTFS_INVALID)$/) as string,
        });
      }),
      { numRuns: 40 },
    );
  });

  it('another size than was declared', async () => {
    await stageImage(context, image);
    await expect(ingestStreaming({ virtualBytes: 83 * PAGE_BYTES }, context)).rejects.toEqual(code('INGEST_REFUSED'));
  });

  it('a configuration with another digest, of unknown members, not canonical, or absent', async () => {
    const key = `${context.stagingPrefix}/config.json`;
    await stageImage(context, image);
    for (const text of ['{"architecture":"arm64"}', '{"evil":1}', ' {"architecture":"amd64"}', '{', '\u{feff}{}']) {
      await bench.store.put(key, new TextEncoder().encode(text));
      await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
    }
    await bench.store.delete(key);
    await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
  });

  it('a broken pack: cut, with a wrong table, or no pack at all', async () => {
    const pack = packOf(bench.hash, image.frames);
    const wrongTable = pack.slice();
    wrongTable[wrongTable.length - 60]! ^= 1;
    for (const bytes of [new Uint8Array(0), noise(1, 1), pack.subarray(0, -1), wrongTable]) {
      await stageImage(context, image, [bytes]);
      await expect(admit(context, image)).rejects.toEqual(code('INGEST_REFUSED'));
    }
  });

  it('a pack that shrinks or vanishes while it is read', async () => {
    await stageImage(context, image);
    for (const change of ['shrink', 'vanish'] as const) {
      let reads = 0;
      const store: ObjectStore = {
        ...bench.store,
        get: (key, options) => {
          if (key.includes('/packs/') && ++reads > 3) {
            return change === 'vanish'
              ? bench.store.get('ns/acme/none')
              : Promise.reject(new RangeError('outside the object'));
          }
          return bench.store.get(key, options);
        },
      };
      await expect(admit({ ...context, store }, image)).rejects.toEqual(code('INGEST_REFUSED'));
    }
  });

  it('chunks that hold no EROFS where the manifest says so', async () => {
    const erofs = imageOf(bench, [noise(1, 16), noise(2, 16)], { format: 'erofs', layout: 'hinted' });
    await stageImage(context, erofs);
    await expect(admit(context, erofs)).rejects.toEqual(code('ROOTFS_INVALID'));
  });

  it('what claims a layout that is not made', async () => {
    for (const format of ['ext4', 'raw'] as const) {
      const claimed = imageOf(bench, [noise(1, 16)], { format, layout: 'hinted' });
      await stageImage(context, claimed);
      await expect(admit(context, claimed)).rejects.toEqual(code('INGEST_REFUSED'));
    }
  });

  it('nothing when it is aborted, which says so', async () => {
    await stageImage(context, image);
    const reason = new Error('enough');
    await expect(admit({ ...context, signal: AbortSignal.abort(reason) }, image)).rejects.toBe(reason);
  });
});
