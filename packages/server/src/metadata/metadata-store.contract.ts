import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

import {
  parseImageId,
  parseNamespace,
  type BuildId,
  type ChunkId,
  type ClaimedJob,
  type ImageId,
  type Template,
} from '@decant/core';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { INGEST_JOB, type AdmissionCommit, type BuildRow, type ImageRow, type MetadataStore } from './store.ts';

/** Two connections to the same fresh store, such as two processes would have. */
export interface MetadataStoreFixture extends AsyncDisposable {
  readonly store: MetadataStore;
  readonly second: MetadataStore;
}

const acme = parseNamespace('acme');
const other = parseNamespace('other');
const code = (expected: string) => expect.objectContaining({ code: expected });
const digits = (n: number) => n.toString(16).padStart(64, '0');
const imageIdOf = (n: number): ImageId => parseImageId(`cas-v1:${digits(n)}`);
const chunkIdOf = (n: number) => digits(n) as ChunkId;

function imageRow(id: ImageId, configDigest: string | null = null): ImageRow {
  return {
    record: {
      id,
      format: 'cas-streaming',
      filesystem: 'erofs',
      layout: 'hinted',
      architecture: 'arm64',
      virtualBytes: 2 ** 40,
      contentBytes: 8192,
      chunks: 2,
      storedBytes: 5000,
      createdAt: '2020-01-01T00:00:00.000Z',
    },
    configDigest,
  };
}

const template = (build: BuildRow): Template => ({
  id: build.id,
  name: `${build.name}:${build.tag}`,
  snapshotId: build.snapshotId,
  snapshotUri: 'decant://x/y',
  snapshotFormatVersion: 'v',
  snapshotSizeBytes: 1,
  rootfsDiskBytes: 2,
  rootfsNodeKind: 'base',
  public: false,
  imageId: imageIdOf(1),
});

/** What every {@link MetadataStore} must do, its job queue included. */
export function metadataStoreContract(name: string, open: () => Promise<MetadataStoreFixture>): void {
  describe(`MetadataStore contract: ${name}`, () => {
    let fixture: MetadataStoreFixture;
    let store: MetadataStore;
    let second: MetadataStore;
    beforeEach(async () => {
      fixture = await open();
      ({ store, second } = fixture);
      await store.ensureNamespace(acme);
      await store.ensureNamespace(other);
    });
    afterEach(() => fixture[Symbol.asyncDispose]());

    const prepare = (namespace = acme, imageName = 'app', tag = 'latest') =>
      store.createBuild({
        id: randomUUID() as BuildId,
        namespace,
        snapshotId: randomUUID(),
        name: imageName,
        tag,
        format: 'cas-streaming',
        request: { name: imageName, extra: ['kept'] },
      });
    const begin = async (build: BuildRow): Promise<ClaimedJob> => {
      await store.beginIngest(build.namespace, build.id, {});
      const job = await store.claim([INGEST_JOB], 60_000);
      if (job === undefined) throw new Error('there is no job');
      return job;
    };
    const commitOf = (build: BuildRow, image: ImageRow, change: Partial<AdmissionCommit> = {}): AdmissionCommit => ({
      build,
      image,
      packs: [],
      configDigest: image.configDigest,
      diskBytes: 0,
      template: template(build),
      ...change,
    });
    const admit = async (n: number, namespace = acme, imageName = 'app', tag = 'latest') => {
      const build = await prepare(namespace, imageName, tag);
      await store.commitAdmission(await begin(build), commitOf(build, imageRow(imageIdOf(n))));
      return build;
    };

    describe('settings', () => {
      it('are made once, whoever asks', async () => {
        const values = await Promise.all(
          [store, second, store, second].map((each, i) => each.setting('secret', () => `value-${i}`)),
        );
        expect(new Set(values).size).toBe(1);
        expect(await second.setting('secret', () => 'late')).toBe(values[0]);
      });
    });

    describe('keys', () => {
      it('are found with their hash, listed and revoked once', async () => {
        const row = await store.createKey('aaaaaaaaaaaa', parseNamespace('brand-new'), 'ff00');
        expect(row).toMatchObject({ id: 'aaaaaaaaaaaa', namespace: 'brand-new', revokedAt: null });
        expect(await second.findKey('aaaaaaaaaaaa')).toEqual({ ...row, secretHash: 'ff00' });
        expect(await second.listKeys()).toEqual([row]);
        const revoked = await second.revokeKey('aaaaaaaaaaaa');
        expect(revoked?.revokedAt).toBeGreaterThanOrEqual(row.createdAt);
        expect(await store.revokeKey('aaaaaaaaaaaa')).toEqual(revoked);
        expect(await store.revokeKey('bbbbbbbbbbbb')).toBeUndefined();
        expect(await store.findKey('bbbbbbbbbbbb')).toBeUndefined();
      });
    });

    describe('registry credentials', () => {
      const credential = { namespace: acme, keyId: null, secretHash: 'ff00', lifeMs: 60_000 };

      it('are found until they end, and go then', async () => {
        const before = Date.now();
        const row = await store.createRegistryCredential({ ...credential, id: 'a' });
        expect(row).toMatchObject({ id: 'a', namespace: 'acme', secretHash: 'ff00' });
        expect(row.expiresAt).toBeGreaterThanOrEqual(before + 59_000);
        expect(await second.findRegistryCredential('a')).toEqual(row);
        await store.createRegistryCredential({ ...credential, id: 'b', lifeMs: 0 });
        expect(await second.findRegistryCredential('b')).toBeUndefined();
        // The ended one is forgotten: its id is free again.
        await store.createRegistryCredential({ ...credential, id: 'b' });
        expect(await second.findRegistryCredential('b')).toMatchObject({ id: 'b' });
        expect(await second.findRegistryCredential('c')).toBeUndefined();
      });

      it('end with their key', async () => {
        await store.createKey('aaaaaaaaaaaa', acme, 'ff00');
        await store.createRegistryCredential({ ...credential, id: 'a', keyId: 'aaaaaaaaaaaa' });
        expect(await second.findRegistryCredential('a')).toMatchObject({ namespace: 'acme' });
        await store.revokeKey('aaaaaaaaaaaa');
        expect(await second.findRegistryCredential('a')).toBeUndefined();
      });
    });

    describe('jobs', () => {
      it('are there once for each key, and are handed out oldest first', async () => {
        const first = await store.enqueue('a', 'k1', { n: 1 });
        expect(await second.enqueue('a', 'k1', { n: 2 })).toBe(first);
        await delay(2);
        await store.enqueue('a', 'k2', { n: 3 });
        const claimed = [await store.claim(['a'], 60_000), await second.claim(['a', 'b'], 60_000)];
        expect(claimed.map((job) => [job?.payload, job?.attempt])).toEqual([
          [{ n: 1 }, 1],
          [{ n: 3 }, 1],
        ]);
        expect(await store.claim(['a'], 60_000)).toBeUndefined();
        expect(await store.claim(['b'], 60_000)).toBeUndefined();
        expect(await store.claim([], 60_000)).toBeUndefined();
      });

      it('are held by one claim at a time, however many ask', async () => {
        for (let i = 0; i < 5; i++) await store.enqueue('a', `k${i}`, i);
        const claims = await Promise.all(
          Array.from({ length: 8 }, (_, i) => (i % 2 ? store : second).claim(['a'], 60_000)),
        );
        const ids = claims.flatMap((job) => (job === undefined ? [] : [job.id]));
        expect(ids).toHaveLength(5);
        expect(new Set(ids).size).toBe(5);
      });

      it('pass to another worker when a lease has run out, and the first can do nothing more', async () => {
        await store.enqueue('a', 'k', null);
        const lost = (await store.claim(['a'], 1))!;
        await delay(5);
        const held = (await second.claim(['a'], 60_000))!;
        expect(held).toMatchObject({ id: lost.id, attempt: 2 });
        expect(held.token).toBeGreaterThan(lost.token);
        expect(await store.renew(lost, 60_000)).toBe(false);
        expect(await store.release(lost, 0)).toBe(false);
        expect(await store.finish(lost)).toBe(false);
        expect(await second.renew(held, 60_000)).toBe(true);
        expect(await second.finish(held)).toBe(true);
        expect(await second.finish(held)).toBe(false);
        expect(await store.claim(['a'], 60_000)).toBeUndefined();
      });

      it('stay with a claim that was renewed, and even with one that is late while nobody else asked', async () => {
        await store.enqueue('a', 'k', null);
        const job = (await store.claim(['a'], 1))!;
        await delay(5);
        expect(await store.renew(job, 60_000)).toBe(true);
        expect(await second.claim(['a'], 60_000)).toBeUndefined();
        expect(await store.finish(job)).toBe(true);
      });

      it('can be given back, at once or for later', async () => {
        await store.enqueue('a', 'k', null);
        const job = (await store.claim(['a'], 60_000))!;
        expect(await store.release(job, 0)).toBe(true);
        const again = (await second.claim(['a'], 60_000))!;
        expect(again.attempt).toBe(2);
        expect(await second.release(again, 60_000)).toBe(true);
        expect(await store.claim(['a'], 60_000)).toBeUndefined();
      });
    });

    describe('builds', () => {
      it('are prepared, found by their namespace only, and keep what was asked', async () => {
        const build = await prepare();
        expect(build).toMatchObject({ status: 'prepared', completion: null, template: null, problem: null });
        expect(build.request).toEqual({ name: 'app', extra: ['kept'] });
        expect(await second.findBuild(acme, build.id)).toEqual(build);
        expect(await store.findBuild(other, build.id)).toBeUndefined();
        expect(await store.findBuild(acme, 'no-such')).toBeUndefined();
        await expect(store.beginIngest(other, build.id, {})).rejects.toEqual(code('NOT_FOUND'));
      });

      it('begin once, with one job', async () => {
        const build = await prepare();
        const begun = await Promise.all([
          store.beginIngest(acme, build.id, { n: 1 }),
          second.beginIngest(acme, build.id, { n: 2 }),
        ]);
        expect(begun.map(({ status }) => status)).toEqual(['ingesting', 'ingesting']);
        expect(begun[0].completion).toEqual(begun[1].completion);
        expect(await store.claim([INGEST_JOB], 60_000)).toMatchObject({
          payload: { namespace: acme, buildId: build.id },
        });
        expect(await store.claim([INGEST_JOB], 60_000)).toBeUndefined();
      });

      it('show their progress until they have ended', async () => {
        const build = await prepare();
        await store.setProgress(build.id, 1, 2);
        expect(await store.findBuild(acme, build.id)).toMatchObject({ progressBytes: 0, progressTotal: 0 });
        const job = await begin(build);
        await store.setProgress(build.id, 3, 4);
        expect(await second.findBuild(acme, build.id)).toMatchObject({ progressBytes: 3, progressTotal: 4 });
        await store.failBuild(job, build, { code: 'INGEST_REFUSED', message: 'No.', hint: 'Again.' });
        expect(await second.findBuild(acme, build.id)).toMatchObject({
          status: 'failed',
          problem: { code: 'INGEST_REFUSED', message: 'No.', hint: 'Again.' },
        });
        expect(await store.claim([INGEST_JOB], 60_000)).toBeUndefined();
      });

      it('end once: the claim that was lost changes nothing', async () => {
        const build = await prepare();
        await store.beginIngest(acme, build.id, {});
        const lost = (await store.claim([INGEST_JOB], 1))!;
        await delay(5);
        const held = (await second.claim([INGEST_JOB], 60_000))!;
        const commit = commitOf(build, imageRow(imageIdOf(1)), {
          packs: [
            {
              key: 'p',
              sizeBytes: 1,
              chunks: [{ id: chunkIdOf(1), offset: 48, storedBytes: 1, plainBytes: 4096, encoding: 'zstd' }],
            },
          ],
        });
        await expect(store.commitAdmission(lost, commit)).rejects.toEqual(code('INGEST_STATE'));
        await expect(store.failBuild(lost, build, { code: 'TIMEOUT', message: '' })).rejects.toEqual(
          code('INGEST_STATE'),
        );
        // Not one part of it is there.
        expect(await store.findImage(acme, imageIdOf(1))).toBeUndefined();
        expect(await store.findName(acme, build)).toBeUndefined();
        expect((await store.chunkIndex(acme).locate([chunkIdOf(1)])).size).toBe(0);
        expect(await store.findBuild(acme, build.id)).toMatchObject({ status: 'ingesting' });
        await second.commitAdmission(held, commit);
        await expect(second.commitAdmission(held, commit)).rejects.toEqual(code('INGEST_STATE'));
        expect(await store.findBuild(acme, build.id)).toMatchObject({
          status: 'completed',
          template: { id: build.id },
        });
      });

      it('that nobody completes are failed, and some time later their staging can go', async () => {
        const abandoned = await prepare();
        const failed = await prepare();
        await store.failBuild(await begin(failed), failed, { code: 'INGEST_REFUSED', message: 'No.' });
        const completed = await admit(1);
        const busy = await prepare();
        await store.beginIngest(acme, busy.id, {});
        const late = { code: 'TIMEOUT', message: 'Late.' };
        expect(await store.expireBuilds(60_000, late)).toEqual([]);
        expect(await store.findBuild(acme, abandoned.id)).toMatchObject({ status: 'prepared' });
        await delay(20);
        const first = await store.expireBuilds(10, late);
        expect(first.map(({ id }) => id).sort()).toEqual([failed.id, completed.id].sort());
        expect(await store.findBuild(acme, abandoned.id)).toMatchObject({ status: 'failed', problem: late });
        expect(await store.findBuild(acme, failed.id)).toMatchObject({ problem: { code: 'INGEST_REFUSED' } });
        expect(await store.findBuild(acme, busy.id)).toMatchObject({ status: 'ingesting' });
        for (const { id } of first) await store.stagingRemoved(id);
        await delay(20);
        expect((await second.expireBuilds(10, late)).map(({ id }) => id)).toEqual([abandoned.id]);
        await second.stagingRemoved(abandoned.id);
        expect(await second.expireBuilds(0, late)).toEqual([]);
      });
    });

    describe('images and chunks', () => {
      it('become visible together, to their namespace only', async () => {
        const build = await prepare();
        const job = await begin(build);
        const chunk = (n: number) =>
          ({
            id: chunkIdOf(n),
            offset: 48 + n,
            storedBytes: 100 + n,
            plainBytes: 4096 * n,
            encoding: n % 2 ? 'raw' : 'zstd',
          }) as const;
        await store.commitAdmission(
          job,
          commitOf(build, imageRow(imageIdOf(7), digits(9)), {
            packs: [
              { key: 'pack-a', sizeBytes: 1000, chunks: new Set([chunk(1), chunk(2)]) },
              { key: 'pack-b', sizeBytes: 2000, chunks: [chunk(3)] },
            ],
            diskBytes: 2 ** 41,
          }),
        );
        const found = await second.findImage(acme, imageIdOf(7));
        expect(found).toMatchObject({
          record: { ...imageRow(imageIdOf(7)).record, createdAt: expect.any(String) as string },
          configDigest: digits(9),
        });
        // On the store's clock, not the caller's.
        expect(found?.record.createdAt).not.toBe('2020-01-01T00:00:00.000Z');
        expect(await second.findName(acme, build)).toMatchObject({
          imageId: imageIdOf(7),
          configDigest: digits(9),
          diskBytes: 2 ** 41,
        });
        const ids = [1, 2, 3, 4].map(chunkIdOf);
        const located = await second.chunkIndex(acme).locate(ids);
        expect(Object.fromEntries(located)).toEqual(
          Object.fromEntries(
            [1, 2, 3].map((n) => {
              const { id, ...place } = chunk(n);
              return [id, { ...place, packKey: n === 3 ? 'pack-b' : 'pack-a' }];
            }),
          ),
        );
        expect((await store.chunkIndex(other).locate(ids)).size).toBe(0);
        expect((await store.chunkIndex(acme).locate([])).size).toBe(0);
        expect(await store.findImage(other, imageIdOf(7))).toBeUndefined();
        expect(await store.findName(other, build)).toBeUndefined();
      });

      it('keep the first place of a chunk that two admissions wrote', async () => {
        const place = { id: chunkIdOf(1), offset: 48, storedBytes: 1, plainBytes: 4096, encoding: 'zstd' } as const;
        for (const [n, key] of [
          [1, 'first'],
          [2, 'second'],
        ] as const) {
          const build = await prepare();
          const packs = [{ key, sizeBytes: 9, chunks: [place] }];
          await store.commitAdmission(await begin(build), commitOf(build, imageRow(imageIdOf(n)), { packs }));
        }
        expect((await store.chunkIndex(acme).locate([chunkIdOf(1)])).get(chunkIdOf(1))?.packKey).toBe('first');
      });

      it('can be admitted again under another name', async () => {
        await admit(1, acme, 'one');
        await admit(1, acme, 'two');
        expect((await store.listNames(acme, { limit: 10 })).map(({ name, imageId }) => [name, imageId])).toEqual([
          ['one', imageIdOf(1)],
          ['two', imageIdOf(1)],
        ]);
      });
    });

    describe('names', () => {
      it('are pointed at images of their namespace, removed, and remember what they pointed at', async () => {
        await admit(1);
        await admit(2);
        await admit(2);
        const app = { name: 'app', tag: 'latest' };
        await expect(
          store.setName(acme, { ...app, imageId: imageIdOf(3), configDigest: null, diskBytes: 0 }),
        ).rejects.toEqual(code('NOT_FOUND'));
        await admit(3, other);
        await expect(
          store.setName(acme, { ...app, imageId: imageIdOf(3), configDigest: null, diskBytes: 0 }),
        ).rejects.toEqual(code('NOT_FOUND'));
        expect(await second.removeName(acme, app)).toBe(true);
        expect(await second.removeName(acme, app)).toBe(false);
        expect(await store.findName(acme, app)).toBeUndefined();
        const row = await store.setName(acme, { ...app, imageId: imageIdOf(1), configDigest: 'cc', diskBytes: 5 });
        expect(row).toMatchObject({ ...app, imageId: imageIdOf(1), configDigest: 'cc', diskBytes: 5 });
        expect(await second.findName(acme, app)).toEqual(row);
        const history = await store.nameHistory(acme, app);
        expect(history.map(({ version, imageId }) => [version, imageId])).toEqual([
          [4, imageIdOf(1)],
          [3, null],
          [2, imageIdOf(2)],
          [1, imageIdOf(1)],
        ]);
        expect(await store.nameHistory(other, { name: 'app', tag: 'v9' })).toEqual([]);
      });

      it('are listed in byte order, page by page, each once', async () => {
        await admit(1, acme, 'seed');
        await store.removeName(acme, { name: 'seed', tag: 'latest' });
        const word = fc.stringMatching(/^[a-z0-9]{1,3}((\.|_|-|\/)[a-z0-9]{1,2})?$/);
        await fc.assert(
          fc.asyncProperty(
            fc.uniqueArray(fc.tuple(word, fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,3}$/)), {
              maxLength: 12,
              selector: (pair) => pair.join(':'),
            }),
            fc.integer({ min: 1, max: 5 }),
            async (pairs, limit) => {
              for (const [each, tag] of pairs) {
                await store.setName(acme, { name: each, tag, imageId: imageIdOf(1), configDigest: null, diskBytes: 0 });
              }
              const listed: string[][] = [];
              for (let after: { name: string; tag: string } | undefined; ;) {
                const page = await store.listNames(acme, { limit, after });
                expect(page.length).toBeLessThanOrEqual(limit);
                listed.push(...page.map(({ name: each, tag }) => [each, tag]));
                after = page.at(-1);
                if (after === undefined) break;
              }
              const expected = [...pairs].sort((a, b) =>
                a[0] === b[0] ? (a[1] < b[1] ? -1 : 1) : a[0] < b[0] ? -1 : 1,
              );
              for (const [each, tag] of pairs) await store.removeName(acme, { name: each, tag });
              expect(listed).toEqual(expected.map((pair) => [...pair]));
            },
          ),
          { numRuns: 12 },
        );
        expect(await store.listNames(other, { limit: 10 })).toEqual([]);
      });
    });
  });
}
