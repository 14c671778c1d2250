import type { ChunkId } from '@decant/core';
import { expect, it } from 'vitest';

import type { ChunkStore } from './chunk-store.ts';
import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { chunkOf, randomPages } from '../test-data.ts';

/** What every {@link ChunkStore} does. `create` gives an empty store for so many bytes. */
export function chunkStoreContract(create: (maxBytes: number) => Promise<ChunkStore>): void {
  const chunk = async (seed: number, pages = 2) => chunkOf(randomPages(seed, pages), await loadHashProvider());

  it('gives back what was put, and only that', async () => {
    const store = await create(2 ** 20);
    const [a, b] = [await chunk(1), await chunk(2, 5)];
    await store.put(a.id, a.plain);
    await store.put(b.id, b.plain);
    await store.put(a.id, a.plain);
    expect(await store.get(a.id, a.plainBytes)).toEqual(a.plain);
    expect(await store.get(b.id, b.plainBytes)).toEqual(b.plain);
    const stranger = 'e'.repeat(64) as ChunkId;
    expect(await store.get(stranger, 4096)).toBeUndefined();
    expect(await store.has([a.id, stranger, b.id])).toEqual(new Set([a.id, b.id]));
  });

  it('keeps a copy: bytes that change later do not matter', async () => {
    const store = await create(2 ** 20);
    const a = await chunk(3);
    const mine = a.plain.slice();
    await store.put(a.id, mine);
    mine.fill(0);
    expect(await store.get(a.id, a.plainBytes)).toEqual(a.plain);
  });

  it('does not give a chunk under another length', async () => {
    const store = await create(2 ** 20);
    const a = await chunk(4);
    await store.put(a.id, a.plain);
    expect(await store.get(a.id, a.plainBytes + 4096)).toBeUndefined();
  });

  it('forgets chunks rather than pass its size, and keeps the newest', async () => {
    const store = await create(10 * 8192);
    const all = await Promise.all(Array.from({ length: 30 }, (_, i) => chunk(100 + i)));
    for (const { id, plain } of all) await store.put(id, plain);
    const there = await store.has(all.map(({ id }) => id));
    expect(there.size).toBeLessThanOrEqual(11);
    expect(there.size).toBeGreaterThanOrEqual(8);
  });

  it('stops with the reason of the signal', async () => {
    const store = await create(2 ** 20);
    const a = await chunk(5);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(store.put(a.id, a.plain, { signal })).rejects.toBe(signal.reason);
    await expect(store.get(a.id, a.plainBytes, { signal })).rejects.toBe(signal.reason);
    await expect(store.has([a.id], { signal })).rejects.toBe(signal.reason);
  });
}
