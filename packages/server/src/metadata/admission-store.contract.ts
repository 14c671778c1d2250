import { setTimeout as delay } from 'node:timers/promises';

import { describe, expect, it } from 'vitest';

import {
  acme,
  chunkIdOf,
  code,
  commitOf,
  digits,
  imageIdOf,
  imageRow,
  other,
  useStores,
  type MetadataStoreFixture,
} from './contract-kit.ts';
import { INGEST_JOB } from './store.ts';

/** What the builds, images and chunks of every store must do. */
export function admissionStoreContract(open: () => Promise<MetadataStoreFixture>): void {
  const on = useStores(open);

  describe('builds', () => {
    it('are prepared, found by their namespace only, and keep what was asked', async () => {
      const build = await on.prepare();
      expect(build).toMatchObject({ status: 'prepared', completion: null, template: null, problem: null });
      expect(build.request).toEqual({ name: 'app', extra: ['kept'] });
      expect(await on.second.builds.find(acme, build.id)).toEqual(build);
      expect(await on.store.builds.find(other, build.id)).toBeUndefined();
      expect(await on.store.builds.find(acme, 'no-such')).toBeUndefined();
      await expect(on.store.builds.beginIngest(other, build.id, {})).rejects.toEqual(code('NOT_FOUND'));
    });

    it('begin once, with one job', async () => {
      const build = await on.prepare();
      const begun = await Promise.all([
        on.store.builds.beginIngest(acme, build.id, { n: 1 }),
        on.second.builds.beginIngest(acme, build.id, { n: 2 }),
      ]);
      expect(begun.map(({ status }) => status)).toEqual(['ingesting', 'ingesting']);
      expect(begun[0].completion).toEqual(begun[1].completion);
      expect(await on.store.jobs.claim([INGEST_JOB], 60_000)).toMatchObject({
        payload: { namespace: acme, buildId: build.id },
      });
      expect(await on.store.jobs.claim([INGEST_JOB], 60_000)).toBeUndefined();
    });

    it('show their progress until they have ended', async () => {
      const build = await on.prepare();
      await on.store.builds.setProgress(build.id, 1, 2);
      expect(await on.store.builds.find(acme, build.id)).toMatchObject({ progressBytes: 0, progressTotal: 0 });
      const job = await on.begin(build);
      await on.store.builds.setProgress(build.id, 3, 4);
      expect(await on.second.builds.find(acme, build.id)).toMatchObject({ progressBytes: 3, progressTotal: 4 });
      await on.store.builds.fail(job, build, { code: 'INGEST_REFUSED', message: 'No.', hint: 'Again.' });
      expect(await on.second.builds.find(acme, build.id)).toMatchObject({
        status: 'failed',
        problem: { code: 'INGEST_REFUSED', message: 'No.', hint: 'Again.' },
      });
      expect(await on.store.jobs.claim([INGEST_JOB], 60_000)).toBeUndefined();
    });

    it('end once: the claim that was lost changes nothing', async () => {
      const build = await on.prepare();
      await on.store.builds.beginIngest(acme, build.id, {});
      const lost = (await on.store.jobs.claim([INGEST_JOB], 1))!;
      await delay(5);
      const held = (await on.second.jobs.claim([INGEST_JOB], 60_000))!;
      const commit = commitOf(build, imageRow(imageIdOf(1)), {
        packs: [
          {
            key: 'p',
            sizeBytes: 1,
            chunks: [{ id: chunkIdOf(1), offset: 48, storedBytes: 1, plainBytes: 4096, encoding: 'zstd' }],
          },
        ],
      });
      await expect(on.store.builds.commit(lost, commit)).rejects.toEqual(code('INGEST_STATE'));
      await expect(on.store.builds.fail(lost, build, { code: 'TIMEOUT', message: '' })).rejects.toEqual(
        code('INGEST_STATE'),
      );
      // Not one part of it is there.
      expect(await on.store.images.find(acme, imageIdOf(1))).toBeUndefined();
      expect(await on.store.names.find(acme, build)).toBeUndefined();
      expect((await on.store.images.chunkIndex(acme).locate([chunkIdOf(1)])).size).toBe(0);
      expect(await on.store.builds.find(acme, build.id)).toMatchObject({ status: 'ingesting' });
      await on.second.builds.commit(held, commit);
      await expect(on.second.builds.commit(held, commit)).rejects.toEqual(code('INGEST_STATE'));
      expect(await on.store.builds.find(acme, build.id)).toMatchObject({
        status: 'completed',
        template: { id: build.id },
      });
    });

    it('that nobody completes are failed, and some time later their staging can go', async () => {
      const abandoned = await on.prepare();
      const failed = await on.prepare();
      await on.store.builds.fail(await on.begin(failed), failed, { code: 'INGEST_REFUSED', message: 'No.' });
      const completed = await on.admit(1);
      const busy = await on.prepare();
      await on.store.builds.beginIngest(acme, busy.id, {});
      const late = { code: 'TIMEOUT', message: 'Late.' };
      expect(await on.store.builds.expire(60_000, late)).toEqual([]);
      expect(await on.store.builds.find(acme, abandoned.id)).toMatchObject({ status: 'prepared' });
      await delay(20);
      const first = await on.store.builds.expire(10, late);
      expect(first.map(({ id }) => id).sort()).toEqual([failed.id, completed.id].sort());
      expect(await on.store.builds.find(acme, abandoned.id)).toMatchObject({ status: 'failed', problem: late });
      expect(await on.store.builds.find(acme, failed.id)).toMatchObject({ problem: { code: 'INGEST_REFUSED' } });
      expect(await on.store.builds.find(acme, busy.id)).toMatchObject({ status: 'ingesting' });
      for (const { id } of first) await on.store.builds.stagingRemoved(id);
      await delay(20);
      expect((await on.second.builds.expire(10, late)).map(({ id }) => id)).toEqual([abandoned.id]);
      await on.second.builds.stagingRemoved(abandoned.id);
      expect(await on.second.builds.expire(0, late)).toEqual([]);
    });
  });

  describe('images and chunks', () => {
    it('become visible together, to their namespace only', async () => {
      const build = await on.prepare();
      const job = await on.begin(build);
      const chunk = (n: number) =>
        ({
          id: chunkIdOf(n),
          offset: 48 + n,
          storedBytes: 100 + n,
          plainBytes: 4096 * n,
          encoding: n % 2 ? 'raw' : 'zstd',
        }) as const;
      await on.store.builds.commit(
        job,
        commitOf(build, imageRow(imageIdOf(7), digits(9)), {
          packs: [
            { key: 'pack-a', sizeBytes: 1000, chunks: new Set([chunk(1), chunk(2)]) },
            { key: 'pack-b', sizeBytes: 2000, chunks: [chunk(3)] },
          ],
          diskBytes: 2 ** 41,
        }),
      );
      const found = await on.second.images.find(acme, imageIdOf(7));
      expect(found).toMatchObject({
        record: { ...imageRow(imageIdOf(7)).record, createdAt: expect.any(String) as string },
        configDigest: digits(9),
      });
      // On the store's clock, not the caller's.
      expect(found?.record.createdAt).not.toBe('2020-01-01T00:00:00.000Z');
      expect(await on.second.names.find(acme, build)).toMatchObject({
        imageId: imageIdOf(7),
        configDigest: digits(9),
        diskBytes: 2 ** 41,
      });
      const ids = [1, 2, 3, 4].map(chunkIdOf);
      const located = await on.second.images.chunkIndex(acme).locate(ids);
      expect(Object.fromEntries(located)).toEqual(
        Object.fromEntries(
          [1, 2, 3].map((n) => {
            const { id, ...place } = chunk(n);
            return [id, { ...place, packKey: n === 3 ? 'pack-b' : 'pack-a' }];
          }),
        ),
      );
      expect((await on.store.images.chunkIndex(other).locate(ids)).size).toBe(0);
      expect((await on.store.images.chunkIndex(acme).locate([])).size).toBe(0);
      expect(await on.store.images.find(other, imageIdOf(7))).toBeUndefined();
      expect(await on.store.names.find(other, build)).toBeUndefined();
    });

    it('are forgotten where they are damaged, and remembered as such until all is told where they lie again', async () => {
      const place = { id: chunkIdOf(1), offset: 48, storedBytes: 1, plainBytes: 4096, encoding: 'zstd' } as const;
      const admit = async (n: number, key: string) => {
        const build = await on.prepare();
        const packs = [{ key, sizeBytes: 9, chunks: [place, { ...place, id: chunkIdOf(n + 10) }] }];
        await on.store.builds.commit(await on.begin(build), commitOf(build, imageRow(imageIdOf(n)), { packs }));
      };
      const { images } = on.store;
      await admit(1, 'first');
      const { id, ...location } = place;
      // What lies elsewhere by now is not meant.
      await images.markDamaged(acme, new Map([[id, { ...location, packKey: 'other' }]]));
      await images.markDamaged(acme, new Map([[id, { ...location, offset: 49, packKey: 'first' }]]));
      await images.markDamaged(other, new Map([[id, { ...location, packKey: 'first' }]]));
      expect(await images.hasDamage(acme)).toBe(false);
      expect((await images.chunkIndex(acme).locate([id])).size).toBe(1);
      for (let i = 0; i < 2; i++) await images.markDamaged(acme, new Map([[id, { ...location, packKey: 'first' }]]));
      expect(await on.second.images.hasDamage(acme)).toBe(true);
      expect(await images.hasDamage(other)).toBe(false);
      expect((await images.chunkIndex(acme).locate([id, chunkIdOf(11)])).size).toBe(1);
      expect(await images.replacedChunks(acme)).toEqual([]);
      await admit(2, 'second');
      expect(await images.hasDamage(acme)).toBe(false);
      expect((await images.chunkIndex(acme).locate([id])).get(id)?.packKey).toBe('second');
      expect(await images.replacedChunks(acme)).toEqual([id]);
      await images.settleReplaced(acme, [id]);
      expect(await images.replacedChunks(acme)).toEqual([]);
    });

    it('list the images made of chunks, page by page', async () => {
      for (const n of [3, 1, 2]) await on.admit(n);
      await on.admit(4, other);
      const page = (limit: number, after?: number) =>
        on.second.images.listStreaming(acme, { limit, ...(after === undefined ? {} : { after: imageIdOf(after) }) });
      expect(await page(2)).toEqual([imageIdOf(1), imageIdOf(2)]);
      expect(await page(2, 2)).toEqual([imageIdOf(3)]);
      expect(await page(2, 3)).toEqual([]);
    });

    it('keep the first place of a chunk that two admissions wrote', async () => {
      const place = { id: chunkIdOf(1), offset: 48, storedBytes: 1, plainBytes: 4096, encoding: 'zstd' } as const;
      for (const [n, key] of [
        [1, 'first'],
        [2, 'second'],
      ] as const) {
        const build = await on.prepare();
        const packs = [{ key, sizeBytes: 9, chunks: [place] }];
        await on.store.builds.commit(await on.begin(build), commitOf(build, imageRow(imageIdOf(n)), { packs }));
      }
      expect((await on.store.images.chunkIndex(acme).locate([chunkIdOf(1)])).get(chunkIdOf(1))?.packKey).toBe('first');
    });

    it('can be admitted again under another name', async () => {
      await on.admit(1, acme, 'one');
      await on.admit(1, acme, 'two');
      expect((await on.store.names.list(acme, { limit: 10 })).map(({ name, imageId }) => [name, imageId])).toEqual([
        ['one', imageIdOf(1)],
        ['two', imageIdOf(1)],
      ]);
    });
  });
}
