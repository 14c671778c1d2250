import { DecantError, sleep, type ChunkFrame, type ChunkId, type ChunkSource } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { createZstdCodec } from '../node/zstd-codec.ts';
import { chunkOf, randomPages } from '../test-data.ts';
import { createChunkLoader, type ChunkLoaderOptions } from './chunk-loader.ts';
import { createMemoryChunkStore } from './chunk-store.ts';

const hash = await loadHashProvider();
const codec = createZstdCodec();
const chunks = Array.from({ length: 12 }, (_, i) => chunkOf(randomPages(50 + i, 3), hash));

/** A source that counts how often each chunk is asked for, and waits or fails as it is told. */
function countingSource() {
  const frames = new Map<ChunkId, ChunkFrame>(
    chunks.map(({ id, plain, plainBytes }) => [id, { id, encoding: 'raw', plainBytes, stored: plain }]),
  );
  const asked = new Map<ChunkId, number>();
  const state = {
    frames,
    asked,
    aborted: 0,
    before: async (_id: ChunkId, signal?: AbortSignal): Promise<void> => sleep(1, signal),
  };
  const source: ChunkSource = {
    has: async (ids) => new Set(ids.filter((id) => frames.has(id))),
    async *get(ids, { signal } = {}) {
      try {
        for (const id of ids) {
          asked.set(id, (asked.get(id) ?? 0) + 1);
          await state.before(id, signal);
          const frame = frames.get(id);
          if (frame !== undefined) yield frame;
        }
      } catch (error) {
        if (signal?.aborted === true) state.aborted++;
        throw error;
      }
    },
  };
  return { ...state, state, source };
}

function loaderOver(source: ChunkSource, extra: Partial<ChunkLoaderOptions> = {}) {
  return createChunkLoader({ source, hash, codec, retryDelayMs: 1, ...extra });
}

describe('a chunk loader', () => {
  it('fetches each chunk once however many callers wait, verified and under its own id', async () => {
    const { source, asked } = countingSource();
    const loader = loaderOver(source);
    const given = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const wanted = chunks.filter((_, at) => (at + i) % 3 !== 0);
        const seen = new Map<ChunkId, Uint8Array>();
        await loader.load([...wanted, ...wanted], ({ id }, plain) => seen.set(id, plain));
        return [wanted, seen] as const;
      }),
    );
    for (const [wanted, seen] of given) {
      expect(seen).toEqual(new Map(wanted.map(({ id, plain }) => [id, plain])));
    }
    expect([...asked.values()]).toEqual(chunks.map(() => 1));
    expect(loader.stats()).toMatchObject({ chunksFetched: chunks.length, rounds: 1 });
  });

  it('ends a fetch when the last caller who waits for it has gone, and not before', async () => {
    const { state, source, asked } = countingSource();
    state.before = (_, signal) => sleep(60_000, signal);
    const loader = loaderOver(source);
    const stops = [new AbortController(), new AbortController()];
    const loads = stops.map(({ signal }) => loader.load([chunks[0]!], () => undefined, { signal }));
    const outcomes = Promise.allSettled(loads);
    await sleep(5);
    stops[0]!.abort(new Error('first'));
    await sleep(5);
    expect(state.aborted).toBe(0);
    stops[1]!.abort(new Error('second'));
    expect(await outcomes).toMatchObject([{ reason: { message: 'first' } }, { reason: { message: 'second' } }]);
    await loader.idle();
    expect(state.aborted).toBe(1);
    // Who asks afterwards is served by a new fetch.
    state.before = () => Promise.resolve();
    let plain: Uint8Array | undefined;
    await loader.load([chunks[0]!], (_, bytes) => void (plain = bytes));
    expect(plain).toEqual(chunks[0]!.plain);
    expect(asked.get(chunks[0]!.id)).toBe(2);
  });

  it('starts anew at once while a fetch that was given up has not ended yet', async () => {
    const { state, source } = countingSource();
    // A source that does not listen to its signal.
    state.before = () => sleep(50);
    const loader = loaderOver(source);
    const stop = new AbortController();
    const first = loader.load([chunks[1]!], () => undefined, { signal: stop.signal });
    stop.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    let plain: Uint8Array | undefined;
    await loader.load([chunks[1]!], (_, bytes) => void (plain = bytes));
    expect(plain).toEqual(chunks[1]!.plain);
    await loader.idle();
  });

  it('fails every caller of a chunk that cannot be had, and serves it when it is there again', async () => {
    const { source, frames } = countingSource();
    const { id } = chunks[2]!;
    const frame = frames.get(id)!;
    frames.delete(id);
    const loader = loaderOver(source, {
      attempts: 3,
      failure: (chunk, cause) =>
        new DecantError('STREAM_READ_FAILED', `no ${chunk.id}`, { cause, details: { chunk: chunk.id } }),
    });
    const loads = Array.from({ length: 3 }, () => loader.load([chunks[2]!], () => undefined));
    for (const load of loads) {
      await expect(load).rejects.toMatchObject({ code: 'STREAM_READ_FAILED', cause: { code: 'CAS_CHUNK_MISSING' } });
    }
    frames.set(id, { ...frame, stored: frame.stored.map((byte, at) => (at === 9 ? byte ^ 4 : byte)) });
    const damaged = loader.load([chunks[2]!], () => undefined);
    await expect(damaged).rejects.toMatchObject({ cause: { code: 'CAS_CHUNK_MISMATCH' } });
    frames.set(id, frame);
    await loader.load([chunks[2]!], (_, plain) => expect(plain).toEqual(frame.stored));
  });

  it('refuses another length for a chunk that is in memory or on its way', async () => {
    const { source } = countingSource();
    const loader = loaderOver(source, { attempts: 1 });
    const { id, plainBytes } = chunks[3]!;
    const longer = { id, plainBytes: plainBytes + 4096 };
    const use = () => undefined;
    const both = await Promise.allSettled([loader.load([chunks[3]!], use), loader.load([longer], use)]);
    expect(both).toMatchObject([{ status: 'fulfilled' }, { reason: { code: 'CAS_CHUNK_MISMATCH' } }]);
    await expect(loader.load([longer], use)).rejects.toMatchObject({ code: 'CAS_CHUNK_MISMATCH' });
  });

  it('keeps no more than it may', async () => {
    const { source, asked } = countingSource();
    const loader = loaderOver(source, { memoryBytes: 2 * chunks[0]!.plainBytes });
    for (let round = 0; round < 2; round++) for (const chunk of chunks) await loader.load([chunk], () => undefined);
    expect([...asked.values()]).toEqual(chunks.map(() => 2));
  });

  it('leaves the fetch of another caller alone when one that was given up fails at last', async () => {
    const { state, source, asked } = countingSource();
    const [late, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const { id } = chunks[4]!;
    // A source that does not listen to its signal, and fails the first time.
    state.before = () => (asked.get(id) === 1 ? late.promise : gate.promise);
    const loader = loaderOver(source);
    const stop = new AbortController();
    const first = loader.load([chunks[4]!], () => undefined, { signal: stop.signal });
    stop.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    const second = loader.load([chunks[4]!], () => undefined);
    late.reject(new Error('too late'));
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    const third = loader.load([chunks[4]!], () => undefined);
    gate.resolve();
    await Promise.all([second, third]);
    expect(asked.get(id)).toBe(2);
  });

  it('leaves a newer fetch of a chunk alone when the rest of an older one is given up', async () => {
    const { state, source, asked } = countingSource();
    const [a, b] = [chunks[5]!, chunks[6]!];
    const gate = Promise.withResolvers<void>();
    state.before = (id, signal) => {
      if (id === b.id) return sleep(60_000, signal);
      return asked.get(a.id) === 1 ? Promise.resolve() : gate.promise;
    };
    // Nothing is kept, so what has come is fetched again.
    const loader = loaderOver(source, { memoryBytes: 0 });
    const stop = new AbortController();
    const came = Promise.withResolvers<void>();
    const first = loader.load([a, b], () => came.resolve(), { signal: stop.signal });
    await came.promise;
    const second = loader.load([a], () => undefined);
    stop.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    const third = loader.load([a], () => undefined);
    gate.resolve();
    await Promise.all([second, third]);
    expect(asked.get(a.id)).toBe(2);
  });

  it('asks for 4 MiB at a time, in as many calls at once as it may', async () => {
    const large = Array.from({ length: 9 }, (_, i) => chunkOf(randomPages(80 + i, 256), hash));
    const calls: number[] = [];
    let [running, most] = [0, 0];
    const source: ChunkSource = {
      has: () => Promise.resolve(new Set()),
      async *get(ids) {
        calls.push(ids.length);
        most = Math.max(most, ++running);
        await sleep(1);
        for (const { id, plain, plainBytes } of large) {
          if (ids.includes(id)) yield { id, encoding: 'raw', plainBytes, stored: plain };
        }
        running--;
      },
    };
    let got = 0;
    await loaderOver(source, { concurrency: 2 }).load(large, () => got++);
    expect([got, calls, most]).toEqual([9, [4, 4, 1], 2]);
  });

  it('takes nothing of another length from a cache, keeps no larger memory alive, and gives nothing once it has ended', async () => {
    const { source, frames, asked } = countingSource();
    const chunk = chunks[7]!;
    const frame = frames.get(chunk.id)!;
    const around = new Uint8Array(2 ** 20);
    around.set(chunk.plain, 5000);
    frames.set(chunk.id, { ...frame, stored: around.subarray(5000, 5000 + chunk.plainBytes) });
    const cache = { ...createMemoryChunkStore(), get: () => Promise.resolve(new Uint8Array(chunk.plainBytes + 4096)) };
    const end = new AbortController();
    const loader = loaderOver(source, { cache, signal: end.signal });
    let plain: Uint8Array | undefined;
    await loader.load([chunk], (_, bytes) => void (plain = bytes));
    expect(plain).toEqual(chunk.plain);
    expect(plain!.buffer.byteLength).toBe(chunk.plainBytes);
    expect(asked.get(chunk.id)).toBe(1);
    const reason = new Error('closed');
    end.abort(reason);
    await expect(loader.load([chunk], () => undefined)).rejects.toBe(reason);
  });
});
