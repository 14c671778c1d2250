import { createMemoryChunkStore } from '@decant/cas';
import { DecantError, MIB, sleep } from '@decant/core';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { createImageDisk } from './image-disk.ts';
import { codec, hash, makeTestImage, type TestImage } from './test-image.ts';

function disk(image: TestImage, extra: Partial<Parameters<typeof createImageDisk>[0]> = {}) {
  return createImageDisk({ manifest: image.manifest, source: image.source, hash, codec, retryDelayMs: 1, ...extra });
}

test('reads any range as it was written, with a memory far smaller than the image', async () => {
  const image = await makeTestImage(3 * MIB + 4096);
  await using streamed = disk(image, { memoryBytes: 300_000 });
  expect(streamed.sizeBytes).toBe(image.bytes.length);
  const range = fc
    .tuple(fc.integer({ min: 0, max: image.bytes.length }), fc.integer({ min: 0, max: MIB }))
    .map(([from, length]) => [from, Math.min(length, image.bytes.length - from)] as const);
  await fc.assert(
    fc.asyncProperty(fc.array(range, { maxLength: 5 }), async (ranges) => {
      const answers = await Promise.all(ranges.map(([from, length]) => streamed.read(from, length)));
      return answers.every((answer, i) => {
        const [from, length] = ranges[i]!;
        return Buffer.compare(answer, image.bytes.subarray(from, from + length)) === 0;
      });
    }),
    { numRuns: 60 },
  );
});

test('100 readers at once fetch each chunk once, in one round, neighbours in one call', async () => {
  const image = await makeTestImage(2 * MIB);
  image.before = () => sleep(1);
  await using streamed = disk(image);
  const answers = await Promise.all(Array.from({ length: 100 }, () => streamed.read(0, image.bytes.length)));
  expect(answers.every((answer) => Buffer.compare(answer, image.bytes) === 0)).toBe(true);
  const asked = image.calls.flat();
  expect(new Set(asked).size).toBe(asked.length);
  expect(asked.length).toBe(image.frames.size);
  expect(image.calls.length).toBe(1);
  const stored = [...image.frames.values()].reduce((sum, frame) => sum + frame.stored.length, 0);
  expect(streamed.stats()).toEqual({
    chunksFetched: image.frames.size,
    bytesFetched: stored,
    bytesVirtual: image.bytes.length,
    rounds: 1,
  });
  await streamed.read(0, 100);
  expect(streamed.stats().rounds).toBe(1);
});

test('a second disk with the same cache fetches nothing', async () => {
  const image = await makeTestImage(MIB);
  const cache = createMemoryChunkStore();
  {
    await using first = disk(image, { cache });
    await first.read(0, image.bytes.length);
  }
  image.frames.clear();
  await using second = disk(image, { cache });
  expect(Buffer.compare(await second.read(0, image.bytes.length), image.bytes)).toBe(0);
  expect(second.stats()).toMatchObject({ chunksFetched: 0, bytesFetched: 0, rounds: 0 });
});

test('a cache that fails is not missed', async () => {
  const image = await makeTestImage(MIB);
  const broken = () => Promise.reject(new Error('disk full'));
  await using streamed = disk(image, { cache: { get: broken, put: broken, has: broken } });
  expect(Buffer.compare(await streamed.read(0, image.bytes.length), image.bytes)).toBe(0);
});

test('a source that fails now and then is asked again for what is left only', async () => {
  const image = await makeTestImage(2 * MIB);
  let count = 0;
  image.before = () => (++count % 5 === 3 ? Promise.reject(new Error('cut')) : Promise.resolve());
  await using streamed = disk(image, { attempts: 50 });
  expect(Buffer.compare(await streamed.read(0, image.bytes.length), image.bytes)).toBe(0);
  expect(streamed.stats().chunksFetched).toBe(image.frames.size);
});

test('one flipped bit in any stored chunk fails the read and never gives a wrong byte', async () => {
  const image = await makeTestImage(2 * MIB);
  const frames = [...image.frames.values()];
  await fc.assert(
    fc.asyncProperty(fc.nat(frames.length - 1), fc.nat(), fc.nat(7), async (index, at, bit) => {
      const frame = frames[index]!;
      const stored = frame.stored.slice();
      stored[at % stored.length]! ^= 1 << bit;
      image.frames.set(frame.id, { ...frame, stored });
      try {
        await using streamed = disk(image, { attempts: 2 });
        const error = await streamed.read(0, image.bytes.length).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        return error instanceof DecantError && error.code === 'STREAM_READ_FAILED';
      } finally {
        image.frames.set(frame.id, frame);
      }
    }),
    { numRuns: 60 },
  );
});

test('a frame under another id, of another length, or never given fails the read', async () => {
  const image = await makeTestImage(MIB);
  const [first, second] = [...image.frames.values()];
  for (const wrong of [
    { ...second!, id: first!.id },
    { ...first!, plainBytes: first!.plainBytes + 4096 },
  ]) {
    image.frames.set(first!.id, wrong);
    await using streamed = disk(image, { attempts: 1 });
    await expect(streamed.read(0, 4096)).rejects.toMatchObject({
      code: 'STREAM_READ_FAILED',
      hint: expect.stringContaining('import or build it again') as string,
    });
  }
  const silent = { has: () => Promise.resolve(new Set<never>()), async *get() {} };
  await using streamed = disk(image, { source: silent, attempts: 2 });
  await expect(streamed.read(0, 4096)).rejects.toMatchObject({ code: 'STREAM_READ_FAILED' });
});

test('a store that cannot be reached is not taken for damage, and its own hint is passed on', async () => {
  const image = await makeTestImage(MIB);
  const cut = (hint?: string) => new DecantError('HTTP_UNREACHABLE', 'No answer.', { hint, retryable: false });
  for (const [cause, hint] of [
    [cut(), 'Check that the server and its store answer, then try again.'],
    [cut('Start the server.'), 'Start the server.'],
  ] as const) {
    const source = {
      has: () => Promise.resolve(new Set<never>()),
      // eslint-disable-next-line require-yield -- it fails before it gives anything
      async *get(): AsyncGenerator<never> {
        throw cause;
      },
    };
    await using streamed = disk(image, { source, attempts: 1 });
    await expect(streamed.read(0, 4096)).rejects.toMatchObject({ code: 'STREAM_READ_FAILED', hint });
  }
});

test('a failed chunk can be read once its source is well again', async () => {
  const image = await makeTestImage(MIB);
  const frames = new Map(image.frames);
  image.frames.clear();
  await using streamed = disk(image, { attempts: 1 });
  await expect(streamed.read(0, 4096)).rejects.toMatchObject({ code: 'STREAM_READ_FAILED' });
  for (const [id, frame] of frames) image.frames.set(id, frame);
  expect(Buffer.compare(await streamed.read(0, 4096), image.bytes.subarray(0, 4096))).toBe(0);
});

test('aborting one read leaves the others; closing the disk ends all', async () => {
  const image = await makeTestImage(MIB);
  image.before = () => sleep(20);
  const streamed = disk(image);
  const abort = new AbortController();
  const given = streamed.read(0, 4096, { signal: abort.signal });
  const kept = streamed.read(0, 4096);
  abort.abort(new Error('enough'));
  await expect(given).rejects.toThrow('enough');
  expect((await kept).length).toBe(4096);
  await expect(streamed.read(image.bytes.length - 4096, 4097)).rejects.toThrow(RangeError);
  await expect(streamed.read(-1, 1)).rejects.toThrow(RangeError);
  image.before = (_, signal) => sleep(60_000, signal);
  const late = streamed.read(image.bytes.length - 4096, 4096);
  await Promise.all([
    expect(late).rejects.toMatchObject({ message: 'The disk was closed.' }),
    streamed[Symbol.asyncDispose](),
  ]);
  await expect(streamed.read(0, 1)).rejects.toMatchObject({ message: 'The disk was closed.' });
});

test('a disk is closed when no fetch is under way any more', async () => {
  const image = await makeTestImage(MIB);
  const begun = Promise.withResolvers<void>();
  let ended = false;
  image.before = (_, signal) => {
    begun.resolve();
    return sleep(60_000, signal);
  };
  const source: TestImage['source'] = {
    has: (ids) => image.source.has(ids),
    async *get(ids, options) {
      try {
        yield* image.source.get(ids, options);
      } finally {
        await sleep(20);
        ended = true;
      }
    },
  };
  const streamed = disk(image, { source });
  const read = streamed.read(0, 4096);
  await begun.promise;
  const refused = expect(read).rejects.toThrow('closed');
  await streamed[Symbol.asyncDispose]();
  expect(ended).toBe(true);
  await refused;
});
