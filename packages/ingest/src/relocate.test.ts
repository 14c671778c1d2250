import { parseLocator } from '@decant/cas';
import { DecantError, type ChunkId, type ImageId, type ObjectStore } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { findDamage } from './find-damage.ts';
import { ingestStreaming } from './ingest-streaming.ts';
import { locatorKey, manifestKey } from './object-keys.ts';
import { locateAll, relocate, restingManifest, type RelocateContext } from './relocate.ts';
import { imageOf, noise, openBench, packOf, stageImage, type Bench, type TestImage } from './staging.fixture.ts';

let bench: Bench;
let image: TestImage;
let context: RelocateContext;
let id: ImageId;
beforeEach(async () => {
  bench = await openBench();
  context = bench.context();
  image = imageOf(bench, [noise(1, 8), 4, noise(2, 8), new Uint8Array(64 * 4096).fill(7)]);
  ({ id } = image.manifest);
  await stageImage(bench.context(), image);
  bench.commit('acme', await admit());
});
afterEach(() => bench[Symbol.asyncDispose]());

const admit = (own = bench.context()) => ingestStreaming({ virtualBytes: image.manifest.virtualBytes }, own);
const locator = () => locatorKey(context.namespace, id);
const code = (expected: string) => expect.objectContaining({ code: expected });

/** The same with a store that counts what is written, and fails some reads. */
function watched(get?: ObjectStore['get']) {
  const written: string[] = [];
  const store: ObjectStore = {
    ...bench.store,
    ...(get === undefined ? {} : { get }),
    put: (key, body, options) => (written.push(key), bench.store.put(key, body, options)),
  };
  return { context: { ...context, store }, written };
}

/** Puts the chunk at this place of the image into a pack of its own, as an admission of it would. */
async function move(place: number): Promise<void> {
  const frame = image.frames[place]!;
  const packKey = `ns/acme/packs/moved-${place}`;
  await bench.store.put(packKey, packOf(bench.hash, [frame]));
  const { encoding, plainBytes, stored } = frame;
  const row = { id: frame.id, encoding, plainBytes, storedBytes: stored.length, offset: 48 };
  const admission = { ...(await admit()), packs: [{ key: packKey, sizeBytes: 1, chunks: [row] }] };
  bench.commit('acme', admission);
}

describe('relocate', () => {
  it('writes nothing when the locator says where the chunks lie', async () => {
    const own = watched();
    expect(await relocate(id, own.context)).toBe(false);
    expect(own.written).toEqual([]);
  });

  it('writes it again when a chunk has moved, for the images that have the chunk', async () => {
    await move(1);
    const own = watched();
    expect(await relocate(id, own.context, ['0'.repeat(64) as ChunkId])).toBe(false);
    expect(own.written).toEqual([]);
    expect(await relocate(id, own.context, ['0'.repeat(64) as ChunkId, image.frames[1]!.id])).toBe(true);
    expect(own.written).toEqual([locator()]);
    const packs = parseLocator(await bench.store.get(locator())).packs.map(({ key }) => key);
    expect(packs).toHaveLength(2);
    expect(packs).toContain('ns/acme/packs/moved-1');
    expect(await relocate(id, own.context)).toBe(false);
  });

  it.each<[string, ((right: Buffer) => Buffer) | undefined]>([
    ['is gone', undefined],
    ['has another byte', (right) => right.map((byte, i) => (i === right.length - 1 ? byte ^ 1 : byte)) as Buffer],
    ['is longer', (right) => Buffer.concat([right, Buffer.alloc(1)])],
    ['is shorter', (right) => right.subarray(0, -1)],
  ])('writes it again when it %s', async (_, damage) => {
    const right = Buffer.from(await bench.store.get(locator()));
    if (damage === undefined) await bench.store.delete(locator());
    else await bench.store.put(locator(), damage(right));
    expect(await relocate(id, context)).toBe(true);
    expect(Buffer.from(await bench.store.get(locator())).equals(right)).toBe(true);
  });

  it('leaves the locator alone while a chunk is nowhere, or of another length', async () => {
    await bench.store.delete(locator());
    const first = image.frames[0]!.id;
    for (const change of ['nowhere', 'length'] as const) {
      const index: RelocateContext['index'] = {
        locate: async (ids) => {
          const found = new Map(await context.index.locate(ids));
          const location = found.get(first);
          if (location === undefined) return found;
          if (change === 'nowhere') found.delete(first);
          else found.set(first, { ...location, plainBytes: location.plainBytes - 4096 });
          return found;
        },
      };
      expect(await locateAll(image.manifest, index, undefined)).toBeUndefined();
      expect(await relocate(id, { ...context, index })).toBe(false);
      expect(await bench.store.head(locator())).toBeUndefined();
    }
  });

  it('says that the manifest is damaged when it is, or is another one, and not when it cannot be read', async () => {
    const key = manifestKey(context.namespace, id);
    const right = await bench.store.get(key);
    const damaged = Buffer.from(right);
    damaged[right.length >> 1]! ^= 1;
    const other = imageOf(bench, [noise(3, 8)]).manifest.bytes;
    for (const bytes of [damaged, right.subarray(0, -1), new Uint8Array(0), other]) {
      await bench.store.put(key, bytes);
      await expect(restingManifest(id, context)).rejects.toEqual(code('CAS_MANIFEST_INVALID'));
      await expect(relocate(id, context)).rejects.toEqual(code('CAS_MANIFEST_INVALID'));
    }
    await bench.store.delete(key);
    await expect(restingManifest(id, context)).rejects.toEqual(code('CAS_MANIFEST_INVALID'));
    await bench.store.put(key, right);
    expect((await restingManifest(id, context)).id).toBe(id);
    const broken = new DecantError('INTERNAL', 'The disk does not answer.');
    await expect(restingManifest(id, watched(() => Promise.reject(broken)).context)).rejects.toBe(broken);
    // However long it says to be, a bounded part of it is read.
    const asked: (number | undefined)[] = [];
    const huge = watched(async (_, options) => (asked.push(options?.range?.lengthBytes), new Uint8Array(9))).context;
    const head: ObjectStore['head'] = async () => ({ key, sizeBytes: 2 ** 40 });
    await expect(restingManifest(id, { ...huge, store: { ...huge.store, head } })).rejects.toEqual(
      code('CAS_MANIFEST_INVALID'),
    );
    expect(asked).toEqual([64 * 1024 * 1024]);
    const reason = new Error('enough');
    await expect(restingManifest(id, { ...context, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

describe('findDamage', () => {
  const ids = () => image.frames.map((frame) => frame.id);
  const find = (store: ObjectStore = bench.store) => findDamage(ids(), { ...bench.context(), store });

  it('finds none in what is whole, and does not look for what is nowhere', async () => {
    expect(await find()).toEqual(new Map());
    const stranger = '0'.repeat(64) as ChunkId;
    expect(await findDamage([stranger], bench.context())).toEqual(new Map());
  });

  it('finds the chunks that a changed, cut or lost pack has damaged, and where they lie', async () => {
    const places = await context.index.locate(ids());
    const { packKey } = places.get(ids()[0]!)!;
    const right = await bench.store.get(packKey);
    for (const [place, chunk] of ids().entries()) {
      const { offset } = places.get(chunk)!;
      // The third is a frame of zstd, whose head this changes.
      const wrong = Buffer.from(right);
      wrong[offset + 1]! ^= 0x55;
      await bench.store.put(packKey, wrong);
      expect([...(await find())], `chunk ${place}`).toEqual([[chunk, places.get(chunk)]]);
    }
    const last = ids().at(-1)!;
    await bench.store.put(packKey, right.subarray(0, places.get(last)!.offset + 1));
    expect([...(await find()).keys()]).toEqual([last]);
    await bench.store.delete(packKey);
    expect(await find()).toEqual(places);
  });

  it('says nothing of a chunk when the store does not answer', async () => {
    const broken = new DecantError('INTERNAL', 'The disk does not answer.');
    await expect(find({ ...bench.store, get: () => Promise.reject(broken) })).rejects.toBe(broken);
    const reason = new Error('enough');
    const aborted = findDamage(ids(), { ...bench.context(), signal: AbortSignal.abort(reason) });
    await expect(aborted).rejects.toBe(reason);
  });
});
