import { setImmediate } from 'node:timers/promises';

import type { ChunkFrame, ObjectStore } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { IngestContext } from './admission.ts';
import { RestPackWriter } from './rest-packs.ts';
import { imageOf, noise, openBench, type Bench } from './staging.fixture.ts';

let bench: Bench;
beforeEach(async () => {
  bench = await openBench();
});
afterEach(() => bench[Symbol.asyncDispose]());

async function write(frames: readonly ChunkFrame[], store: ObjectStore = bench.store) {
  const context: IngestContext = { ...bench.context(), store };
  await using writer = new RestPackWriter(context);
  for (const frame of frames) await writer.add(frame);
  return await writer.finish();
}

/** A mebibyte each; no two are equal, and none compresses. */
const mebibytes = (count: number) => {
  const bytes = noise(1, 256);
  const stretches = Array.from({ length: count }, (_, i) => bytes.map((byte, at) => (at === 0 ? i : byte)));
  return imageOf(bench, stretches).frames;
};

describe('RestPackWriter', () => {
  it('writes a pack that rests as it should not again, and one that is damaged over what is there', async () => {
    const { frames } = imageOf(bench, [noise(1, 8), noise(2, 8)]);
    const written: string[] = [];
    const store: ObjectStore = {
      ...bench.store,
      put: (key, body, options) => (written.push(key), bench.store.put(key, body, options)),
    };
    const [pack] = await write(frames, store);
    const right = Buffer.from(await bench.store.get(pack!.key));
    expect(right.length).toBe(pack!.sizeBytes);
    expect(await write(frames, store)).toMatchObject([{ key: pack!.key, sizeBytes: right.length }]);
    expect(written).toEqual([pack!.key]);
    const damages = [
      right.map((byte, at) => (at === right.length >> 1 ? byte ^ 1 : byte)),
      right.subarray(0, -1),
      Buffer.concat([right, Buffer.alloc(1)]),
    ];
    for (const damaged of damages) {
      await bench.store.put(pack!.key, damaged);
      expect(await write(frames, store)).toMatchObject([{ key: pack!.key, sizeBytes: right.length }]);
      expect(Buffer.from(await bench.store.get(pack!.key)).equals(right)).toBe(true);
    }
    expect(written).toHaveLength(4);
  });

  it('has nothing on its way into the store any more when it has been disposed of', async () => {
    const frames = mebibytes(17);
    const release = Promise.withResolvers<void>();
    let storing = 0;
    const store: ObjectStore = {
      ...bench.store,
      put: async (key, body, options) => {
        storing++;
        const info = await bench.store.put(key, body, options);
        await release.promise;
        storing--;
        return info;
      },
    };
    const writer = new RestPackWriter({ ...bench.context(), store });
    for (const frame of frames) await writer.add(frame);
    expect(storing).toBe(1);
    let disposed = false;
    const ended = writer[Symbol.asyncDispose]().then(() => (disposed = true));
    for (let turn = 0; turn < 100; turn++) await setImmediate();
    expect(disposed).toBe(false);
    release.resolve();
    await ended;
    expect(storing).toBe(0);
  });
});
