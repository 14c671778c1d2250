import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createObjectSource, createPackBuilder } from '@decant/cas';
import { loadNodeHashProvider } from '@decant/cas/node';
import { concatBytes, type ChunkFrame, type ChunkId, type ChunkLocation, type ObjectStore } from '@decant/core';
import { chunkSourceContract, testFrames } from '@decant/core/contract';
import { createFileObjectStore, createMemoryObjectStore } from '@decant/dataplane';
import { describe, expect, it } from 'vitest';

const hash = await loadNodeHashProvider();

/** Puts frames into packs of the store, and says where each lies. */
async function publish(frames: readonly ChunkFrame[], store: ObjectStore): Promise<Map<ChunkId, ChunkLocation>> {
  const places = new Map<ChunkId, ChunkLocation>();
  for (let from = 0; from < frames.length; from += 100) {
    const builder = createPackBuilder({ hash });
    const parts = frames.slice(from, from + 100).flatMap((frame) => builder.add(frame));
    const { bytes, table, digest } = builder.finish();
    const packKey = `ns/test/packs/${digest}`;
    await store.put(packKey, concatBytes([...parts, bytes]));
    for (const { id, ...row } of table.rows()) places.set(id, { packKey, ...row });
  }
  return places;
}

const sourceOver = (store: ObjectStore, places: ReadonlyMap<ChunkId, ChunkLocation>) =>
  createObjectSource({
    store,
    index: { locate: async (ids) => new Map(ids.flatMap((id) => (places.has(id) ? [[id, places.get(id)!]] : []))) },
  });

describe('a chunk source over an object store in memory', () => {
  chunkSourceContract(async (frames) => {
    const store = createMemoryObjectStore();
    const source = sourceOver(store, await publish(frames, store));
    return { source, [Symbol.asyncDispose]: () => Promise.resolve() };
  });
});

describe('a chunk source over an object store of files', () => {
  chunkSourceContract(async (frames) => {
    const directory = await mkdtemp(join(tmpdir(), 'decant-objects-'));
    const store = createFileObjectStore({ directory, fsync: 'never' });
    const source = sourceOver(store, await publish(frames, store));
    return { source, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
  });

  it('calls a chunk missing when its pack has gone or been cut short', async () => {
    const frames = testFrames(5);
    const store = createMemoryObjectStore();
    const places = await publish(frames, store);
    const [{ packKey } = { packKey: '' }] = places.values();
    const read = async () => {
      for await (const frame of sourceOver(store, places).get([...places.keys()])) void frame;
    };
    await store.put(packKey, (await store.get(packKey)).subarray(0, 1000));
    await expect(read()).rejects.toMatchObject({ code: 'CAS_CHUNK_MISSING', details: { pack: packKey } });
    await store.delete(packKey);
    await expect(read()).rejects.toMatchObject({ code: 'CAS_CHUNK_MISSING', details: { pack: packKey } });
  });
});
