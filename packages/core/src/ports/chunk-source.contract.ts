import { expect, it } from 'vitest';

import { toHex } from '../bytes.ts';
import type { ChunkId } from '../ids.ts';
import { PAGE_BYTES } from '../units.ts';
import type { ChunkFrame, ChunkSource } from './chunks.ts';

/** A source for one test that gives exactly the frames it was made from. */
export interface ChunkSourceFixture extends AsyncDisposable {
  readonly source: ChunkSource;
}

/** Frames of one to four pages that are all different; every third one is said to be zstd and stored in 700 bytes. */
export function testFrames(count: number): ChunkFrame[] {
  return Array.from({ length: count }, (_, i) => {
    const plainBytes = (1 + (i % 4)) * PAGE_BYTES;
    const encoding = i % 3 === 0 ? 'zstd' : 'raw';
    const id = new Uint8Array(32).map((_, at) => (i * 31 + at * 7 + (i >> 3)) & 255);
    new DataView(id.buffer).setUint32(0, Math.imul(i + 1, 0x9e3779b1));
    const stored = new Uint8Array(encoding === 'raw' ? plainBytes : 700).map((_, at) => (i + at) & 255);
    return { id: toHex(id) as ChunkId, encoding, plainBytes, stored };
  });
}

/** What every {@link ChunkSource} does. `create` is given frames with different ids. */
export function chunkSourceContract(create: (frames: readonly ChunkFrame[]) => Promise<ChunkSourceFixture>): void {
  const frames = testFrames(300);
  const ids = frames.map(({ id }) => id);
  const stranger = 'e'.repeat(64) as ChunkId;
  const byId = (all: readonly ChunkFrame[]) => all.toSorted((a, b) => (a.id < b.id ? -1 : 1)).map(copy);
  const drain = async (source: ChunkSource, wanted: readonly ChunkId[], signal?: AbortSignal) => {
    const all: ChunkFrame[] = [];
    // What is given may be a view of something that the next step overwrites.
    for await (const frame of source.get(wanted, { signal })) all.push(copy(frame));
    return all;
  };

  it('gives all chunks of a batch, each once and as it is stored', async () => {
    await using fixture = await create(frames);
    expect(byId(await drain(fixture.source, ids))).toEqual(byId(frames));
  });

  it('gives any part of them, asked for in any order and twice', async () => {
    await using fixture = await create(frames);
    const part = frames.filter((_, i) => i % 7 === 2 || i === 0 || i === frames.length - 1);
    const wanted = part.map(({ id }) => id);
    expect(byId(await drain(fixture.source, [...wanted.toReversed(), ...wanted]))).toEqual(byId(part));
    expect(await drain(fixture.source, [])).toEqual([]);
  });

  it('says which of a batch it has', async () => {
    await using fixture = await create(frames);
    expect(await fixture.source.has([ids[5]!, stranger, ids[299]!, ids[5]!])).toEqual(new Set([ids[5], ids[299]]));
    expect(await fixture.source.has([])).toEqual(new Set());
    expect((await fixture.source.has(ids)).size).toBe(ids.length);
  });

  it('throws CAS_CHUNK_MISSING for one that is not there', async () => {
    await using fixture = await create(frames);
    await expect(drain(fixture.source, [ids[0]!, stranger])).rejects.toMatchObject({ code: 'CAS_CHUNK_MISSING' });
  });

  it('serves many callers at once, and one who stops early harms none', async () => {
    await using fixture = await create(frames);
    const callers = Array.from({ length: 8 }, async (_, i) => {
      if (i % 2 === 0) return drain(fixture.source, ids.slice(i * 10));
      for await (const frame of fixture.source.get(ids)) return [copy(frame)];
      return [];
    });
    for (const [i, given] of (await Promise.all(callers)).entries()) {
      expect(given.length).toBe(i % 2 === 0 ? ids.length - i * 10 : 1);
    }
  });

  it('stops with the reason of the signal', async () => {
    await using fixture = await create(frames);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(drain(fixture.source, ids, signal)).rejects.toBe(signal.reason);
    await expect(fixture.source.has(ids, { signal })).rejects.toBe(signal.reason);
    const stop = new AbortController();
    const reason = new Error('enough of it');
    const stopped = (async () => {
      for await (const _ of fixture.source.get(ids, { signal: stop.signal })) stop.abort(reason);
    })();
    await expect(stopped).rejects.toBe(reason);
  });
}

function copy({ id, encoding, plainBytes, stored }: ChunkFrame): ChunkFrame {
  return { id, encoding, plainBytes, stored: stored.slice() };
}
