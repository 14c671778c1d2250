import { canonicalConfig, createImageReader, createPackSource, parseLocator, parseManifest } from '@decant/cas';
import { PAGE_BYTES, type ObjectStore } from '@decant/core';
import { setImmediate } from 'node:timers/promises';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { IngestContext } from './admission.ts';
import { ingestStreaming } from './ingest-streaming.ts';
import { locatorKey, manifestKey } from './object-keys.ts';
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

/** Counts what a store is asked for. */
function watch(store: ObjectStore): { store: ObjectStore; read: string[]; written: string[] } {
  const read: string[] = [];
  const written: string[] = [];
  return {
    read,
    written,
    store: {
      ...store,
      get: (key, options) => (read.push(key), store.get(key, options)),
      stream: (key, options) => (read.push(key), store.stream(key, options)),
      put: (key, body, options) => (written.push(key), store.put(key, body, options)),
    },
  };
}

/** The image as a client would read it from what is at rest. */
async function readBack(context: IngestContext, image: TestImage): Promise<Uint8Array> {
  const { store, namespace, hash, codec } = context;
  const manifest = parseManifest(await store.get(manifestKey(namespace, image.manifest.id)), hash);
  const locator = parseLocator(await store.get(locatorKey(namespace, image.manifest.id)));
  const source = createPackSource({
    manifest,
    locator,
    readRange: (pack, offset, lengthBytes) => store.get(locator.packs[pack]!.key, { range: { offset, lengthBytes } }),
  });
  return createImageReader(manifest, source, { hash, codec }).read(0, manifest.virtualBytes);
}

describe('what is in order', () => {
  it('is admitted, and reads back byte for byte', async () => {
    const context = bench.context();
    const image = sample();
    await stageImage(context, image);
    const admission = await admit(context, image);
    expect(admission).toMatchObject({
      id: image.manifest.id,
      repeated: false,
      record: {
        filesystem: 'raw',
        layout: 'foreign',
        virtualBytes: 84 * PAGE_BYTES,
        contentBytes: 64 * PAGE_BYTES,
        chunks: 3,
      },
      counts: { chunksTotal: 3, chunksNew: 3, newBytes: 48 * PAGE_BYTES },
    });
    expect(admission.counts.storedBytes).toBe(image.frames.reduce((sum, { stored }) => sum + stored.length, 0));
    expect(admission.packs.flatMap(({ chunks }) => [...chunks].map(({ id }) => id))).toEqual(
      image.frames.map(({ id }) => id),
    );
    expect(Buffer.from(await readBack(context, image)).equals(image.bytes)).toBe(true);
  });

  it('stores only the chunks that are new', async () => {
    const first = imageOf(bench, [noise(1, 16), noise(2, 16)]);
    const context = bench.context();
    await stageImage(context, first);
    bench.commit('acme', await admit(context, first));

    const next = bench.context('acme', 'build-2');
    const second = imageOf(bench, [noise(2, 16), noise(3, 16)]);
    await stageImage(next, second, [packOf(bench.hash, second.frames.slice(1))]);
    const admission = await admit(next, second);
    expect(admission.counts).toMatchObject({ chunksTotal: 2, chunksNew: 1, newBytes: 16 * PAGE_BYTES });
    expect(admission.record.storedBytes).toBe(32 * PAGE_BYTES);
    expect(Buffer.from(await readBack(next, second)).equals(second.bytes)).toBe(true);
  });

  it('verifies a staged chunk that the namespace has got meanwhile, and does not store it twice', async () => {
    const first = imageOf(bench, [noise(1, 16)]);
    await stageImage(bench.context(), first);
    bench.commit('acme', await admit(bench.context(), first));
    const next = bench.context('acme', 'build-2');
    const second = imageOf(bench, [noise(1, 16), 1]);
    await stageImage(next, second);
    expect((await admit(next, second)).counts).toMatchObject({ chunksNew: 0, newBytes: 0 });
    const third = bench.context('acme', 'build-3');
    const image = imageOf(bench, [noise(1, 16), 2]);
    await stageImage(third, image, [packOf(bench.hash, [{ ...image.frames[0]!, stored: noise(9, 16) }])]);
    await expect(admit(third, image)).rejects.toEqual(code('INGEST_REFUSED'));
  });

  it('reads no chunk and writes nothing when the namespace has the image', async () => {
    const image = sample();
    await stageImage(bench.context(), image);
    const first = await admit(bench.context(), image);
    bench.commit('acme', first);

    const context = bench.context('acme', 'build-2');
    const { store, read, written } = watch(bench.store);
    await bench.store.put(`${context.stagingPrefix}/manifest`, image.manifest.bytes);
    const again = await admit({ ...context, store }, image);
    expect(again).toEqual({
      ...first,
      repeated: true,
      packs: [],
      counts: { chunksTotal: 3, chunksNew: 0, newBytes: 0, storedBytes: 0 },
    });
    const { namespace } = context;
    const { id } = image.manifest;
    expect(read).toEqual([`${context.stagingPrefix}/manifest`, manifestKey(namespace, id), locatorKey(namespace, id)]);
    expect(written).toEqual([]);
  });

  it.each(['manifest', 'locator'])('writes the %s again that is damaged or gone', async (what) => {
    const image = sample();
    await stageImage(bench.context(), image);
    bench.commit('acme', await admit(bench.context(), image));
    const { store, namespace } = bench.context();
    const key = (what === 'manifest' ? manifestKey : locatorKey)(namespace, image.manifest.id);
    const bytes = Buffer.from(await store.get(key));
    for (const build of ['build-2', 'build-3']) {
      const context = bench.context('acme', build);
      const damaged = Buffer.from(bytes);
      damaged[60]! ^= 4;
      if (build === 'build-2') await store.put(key, damaged);
      else await store.delete(key);
      await store.put(`${context.stagingPrefix}/manifest`, image.manifest.bytes);
      await store.put(`${context.stagingPrefix}/config.json`, canonicalConfig(image.config!));
      const again = await admit(context, image);
      expect(again).toMatchObject({ id: image.manifest.id, counts: { chunksNew: 0, newBytes: 0 }, packs: [] });
      expect(Buffer.from(await store.get(key)).equals(bytes)).toBe(true);
    }
  });

  it('may be begun again after it was cut short anywhere', async () => {
    const image = sample();
    const context = bench.context();
    await stageImage(context, image);
    for (let allowed = 0; ; allowed++) {
      let puts = 0;
      const store: ObjectStore = {
        ...bench.store,
        put: async (key, body, options) => {
          if (puts++ === allowed) throw new Error('cut');
          return bench.store.put(key, body, options);
        },
      };
      const result = await admit({ ...context, store }, image).catch((error: unknown) => error);
      if (!(result instanceof Error)) break;
      expect(result.message).toBe('cut');
      expect(allowed).toBeLessThan(10);
    }
    expect(Buffer.from(await readBack(context, image)).equals(image.bytes)).toBe(true);
  });

  const incompressible = noise(1, 256);

  it('fills a pack while the one before is made durable, and does not lose a failure of that', async () => {
    // 28 MiB that do not compress: two packs at rest. Each chunk differs from the others in its first bytes only.
    const image = imageOf(
      bench,
      Array.from({ length: 28 }, (_, i) => {
        const chunk = incompressible.slice();
        chunk[0] = i;
        return chunk;
      }),
    );
    const context = bench.context();
    await stageImage(context, image);
    let packs = 0;
    let readWhileStoring = 0;
    let storing = 0;
    const wasRead = () => readWhileStoring > 0;
    const store: ObjectStore = {
      ...bench.store,
      get: (key, options) => ((readWhileStoring += storing), bench.store.get(key, options)),
      put: async (key, body, options) => {
        if (!key.includes('/packs/')) return bench.store.put(key, body, options);
        // From before the last byte is taken: the reader may be done with all it can read before this has ended.
        storing++;
        await bench.store.put(key, body, options);
        packs++;
        // Until the first read, which a busy machine may take long for. It is never waited for again.
        for (const began = performance.now(); !wasRead() && performance.now() - began < 30_000;) await setImmediate();
        storing--;
        throw new Error('cut');
      },
    };
    // What is at rest is not written again: each time the next pack is the one that fails.
    for (let count = 1; count <= 2; count++) {
      await expect(admit({ ...context, store }, image)).rejects.toThrow('cut');
      expect(packs).toBe(count);
    }
    expect(wasRead()).toBe(true);
    expect((await admit({ ...context, store }, image)).packs.length).toBe(2);
    expect(Buffer.from(await readBack(context, image)).equals(image.bytes)).toBe(true);
  }, 60_000);

  it('does not depend on how chunks were spread over staging packs', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 6, maxLength: 6 }), async (places) => {
        await using own = await openBench();
        const image = imageOf(
          own,
          [1, 2, 3, 4, 5, 6].map((seed) => noise(seed, 4)),
        );
        const context = own.context();
        const packs = [0, 1, 2, 3]
          .map((pack) => image.frames.filter((_, i) => places[i] === pack))
          .filter((frames) => frames.length > 0);
        await stageImage(
          context,
          image,
          packs.map((frames) => packOf(own.hash, frames)),
        );
        const { packs: atRest } = await ingestStreaming({ virtualBytes: image.manifest.virtualBytes }, context);
        expect(atRest.map(({ key }) => key)).toHaveLength(1);
        expect([...atRest[0]!.chunks].map(({ id }) => id)).toEqual(image.frames.map(({ id }) => id));
      }),
      { numRuns: 8 },
    );
  });
});

describe('bounds', () => {
  it('reads no more than is staged, however many packs there are', async () => {
    const image = imageOf(
      bench,
      Array.from({ length: 24 }, (_, i) => noise(i + 1, 256)),
    );
    const context = bench.context();
    await stageImage(
      context,
      image,
      image.frames.map((frame) => packOf(bench.hash, [frame])),
    );
    const reads: number[] = [];
    const store: ObjectStore = {
      ...bench.store,
      get: (key, options) => (reads.push(options?.range?.lengthBytes ?? 0), bench.store.get(key, options)),
    };
    await admit({ ...context, store }, image);
    // Head, footer and table of a pack are read as they are; only frames are read ahead.
    const total = reads.reduce((sum, bytes) => sum + bytes, 0);
    expect(total).toBeLessThan(24 * (1024 * 1024 + 4096) + image.manifest.bytes.length);
  });
});
