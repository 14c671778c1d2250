import { describe, expect, it } from 'vitest';

import { chunkStoreContract } from './chunk-store.contract.ts';
import { createMemoryChunkStore } from './chunk-store.ts';
import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { chunkOf, randomPages } from '../test-data.ts';

describe('the chunk store in memory', () => {
  chunkStoreContract(async (maxBytes) => createMemoryChunkStore({ maxBytes }));

  it('forgets the chunk longest unused first', async () => {
    const hash = await loadHashProvider();
    const store = createMemoryChunkStore({ maxBytes: 3 * 4096 });
    const [a, b, c, d] = [1, 2, 3, 4].map((seed) => chunkOf(randomPages(seed, 1), hash));
    for (const { id, plain } of [a!, b!, c!]) await store.put(id, plain);
    await store.get(a!.id, 4096);
    await store.put(d!.id, d!.plain);
    expect(await store.has([a!.id, b!.id, c!.id, d!.id])).toEqual(new Set([a!.id, c!.id, d!.id]));
  });
});
