import { setTimeout as delay } from 'node:timers/promises';

import { describe, expect, it } from 'vitest';

import { useStores, type MetadataStoreFixture } from './contract-kit.ts';

/** What the job queue of every store must do. */
export function jobQueueContract(open: () => Promise<MetadataStoreFixture>): void {
  const on = useStores(open);

  describe('jobs', () => {
    it('are there once for each key, and are handed out oldest first', async () => {
      const first = await on.store.jobs.enqueue('a', 'k1', { n: 1 });
      expect(await on.second.jobs.enqueue('a', 'k1', { n: 2 })).toBe(first);
      await delay(2);
      await on.store.jobs.enqueue('a', 'k2', { n: 3 });
      const claimed = [await on.store.jobs.claim(['a'], 60_000), await on.second.jobs.claim(['a', 'b'], 60_000)];
      expect(claimed.map((job) => [job?.payload, job?.attempt])).toEqual([
        [{ n: 1 }, 1],
        [{ n: 3 }, 1],
      ]);
      expect(await on.store.jobs.claim(['a'], 60_000)).toBeUndefined();
      expect(await on.store.jobs.claim(['b'], 60_000)).toBeUndefined();
      expect(await on.store.jobs.claim([], 60_000)).toBeUndefined();
    });

    it('are held by one claim at a time, however many ask', async () => {
      for (let i = 0; i < 5; i++) await on.store.jobs.enqueue('a', `k${i}`, i);
      const claims = await Promise.all(
        Array.from({ length: 8 }, (_, i) => (i % 2 ? on.store : on.second).jobs.claim(['a'], 60_000)),
      );
      const ids = claims.flatMap((job) => (job === undefined ? [] : [job.id]));
      expect(ids).toHaveLength(5);
      expect(new Set(ids).size).toBe(5);
    });

    it('pass to another worker when a lease has run out, and the first can do nothing more', async () => {
      await on.store.jobs.enqueue('a', 'k', null);
      const lost = (await on.store.jobs.claim(['a'], 1))!;
      await delay(5);
      const held = (await on.second.jobs.claim(['a'], 60_000))!;
      expect(held).toMatchObject({ id: lost.id, attempt: 2 });
      expect(held.token).toBeGreaterThan(lost.token);
      expect(await on.store.jobs.renew(lost, 60_000)).toBe(false);
      expect(await on.store.jobs.release(lost, 0)).toBe(false);
      expect(await on.store.jobs.finish(lost)).toBe(false);
      expect(await on.second.jobs.renew(held, 60_000)).toBe(true);
      expect(await on.second.jobs.finish(held)).toBe(true);
      expect(await on.second.jobs.finish(held)).toBe(false);
      expect(await on.store.jobs.claim(['a'], 60_000)).toBeUndefined();
    });

    it('stay with a claim that was renewed, and even with one that is late while nobody else asked', async () => {
      await on.store.jobs.enqueue('a', 'k', null);
      const job = (await on.store.jobs.claim(['a'], 1))!;
      await delay(5);
      expect(await on.store.jobs.renew(job, 60_000)).toBe(true);
      expect(await on.second.jobs.claim(['a'], 60_000)).toBeUndefined();
      expect(await on.store.jobs.finish(job)).toBe(true);
    });

    it('can be given back, at once or for later', async () => {
      await on.store.jobs.enqueue('a', 'k', null);
      const job = (await on.store.jobs.claim(['a'], 60_000))!;
      expect(await on.store.jobs.release(job, 0)).toBe(true);
      const again = (await on.second.jobs.claim(['a'], 60_000))!;
      expect(again.attempt).toBe(2);
      expect(await on.second.jobs.release(again, 60_000)).toBe(true);
      expect(await on.store.jobs.claim(['a'], 60_000)).toBeUndefined();
    });
  });
}
