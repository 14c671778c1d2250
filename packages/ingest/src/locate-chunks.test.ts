import type { Manifest } from '@decant/cas';
import { PAGE_BYTES, type ChunkId, type ChunkIndex, type ChunkLocation } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { locateChunks } from './locate-chunks.ts';

const idOf = (entry: number) => entry.toString(16).padStart(64, '0') as ChunkId;
const locationOf = (entry: number): ChunkLocation => ({
  packKey: 'p',
  offset: entry,
  storedBytes: 1,
  plainBytes: PAGE_BYTES,
  encoding: 'raw',
});

/** Of a manifest only its chunks are walked. */
function manifestOf(count: number): Manifest {
  return {
    *chunks() {
      for (let entry = 0; entry < count; entry++) yield { id: idOf(entry), plainBytes: PAGE_BYTES, entry };
    },
  } as Manifest;
}

/** Knows every second chunk. */
function indexOf(asked: number[]): ChunkIndex {
  return {
    locate: async (ids) => {
      asked.push(ids.length);
      const entries = ids.map((id) => Number.parseInt(id, 16)).filter((entry) => entry % 2 === 0);
      return new Map(entries.map((entry) => [idOf(entry), locationOf(entry)]));
    },
  };
}

describe('locateChunks', () => {
  it.each([
    [0, []],
    [1, [1]],
    [16_384, [16_384]],
    [16_385, [16_384, 1]],
    [40_000, [16_384, 16_384, 7232]],
  ])('asks for each of %d chunks once, in order, a bounded number at a time', async (count, batches) => {
    const asked: number[] = [];
    let next = 0;
    for await (const { chunks, found } of locateChunks(manifestOf(count), indexOf(asked), undefined)) {
      expect(found.size).toBe(Math.ceil(chunks.length / 2));
      for (const { entry, id } of chunks) {
        if (entry !== next) throw new Error(`chunk ${entry} came where ${next} should have`);
        if (found.get(id)?.offset !== (entry % 2 === 0 ? entry : undefined)) throw new Error(`of chunk ${entry}`);
        next++;
      }
    }
    expect(next).toBe(count);
    expect(asked).toEqual(batches);
  });

  it('stops between two questions when it is aborted', async () => {
    const asked: number[] = [];
    const controller = new AbortController();
    const reason = new Error('enough');
    const walk = async () => {
      for await (const { chunks } of locateChunks(manifestOf(20_000), indexOf(asked), controller.signal)) {
        expect(chunks.length).toBe(16_384);
        controller.abort(reason);
      }
    };
    await expect(walk()).rejects.toBe(reason);
    expect(asked).toEqual([16_384]);
  });
});
