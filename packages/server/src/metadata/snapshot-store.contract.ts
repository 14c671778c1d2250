import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

import { parseImageId, parseNamespace, type BuildId, type Namespace } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { MetadataStoreFixture } from './contract-kit.ts';
import type { SnapshotStore } from './snapshot-store.ts';
import { INGEST_JOB } from './store.ts';

const acme = parseNamespace('acme');
const other = parseNamespace('other');
const IMAGE = parseImageId(`cas-v1:${'1'.repeat(64)}`);

/** What every {@link SnapshotStore} must do. */
export function snapshotStoreContract(name: string, open: () => Promise<MetadataStoreFixture>): void {
  describe(`SnapshotStore contract: ${name}`, () => {
    let fixture: MetadataStoreFixture;
    let snapshots: SnapshotStore;
    let second: SnapshotStore;

    const admit = async (namespace: Namespace) => {
      const { store } = fixture;
      await store.keys.ensureNamespace(namespace);
      const id = randomUUID() as BuildId;
      const build = await store.builds.create({
        ...{
          id,
          namespace,
          snapshotId: randomUUID(),
          name: 'app',
          tag: 'latest',
          format: 'cas-streaming',
          request: {},
        },
      });
      await store.builds.beginIngest(namespace, id, {});
      const job = await store.jobs.claim([INGEST_JOB], 60_000);
      await store.builds.commit(job!, {
        build,
        image: {
          record: {
            id: IMAGE,
            format: 'cas-streaming',
            filesystem: 'erofs',
            layout: 'hinted',
            architecture: 'amd64',
            virtualBytes: 1,
            contentBytes: 1,
            chunks: 1,
            storedBytes: 1,
            createdAt: '2020-01-01T00:00:00.000Z',
          },
          configDigest: null,
        },
        packs: [],
        configDigest: null,
        diskBytes: 0,
        template: {} as never,
      });
    };
    beforeEach(async () => {
      fixture = await open();
      snapshots = fixture.store.snapshots;
      second = fixture.second.snapshots;
      await admit(acme);
      await admit(other);
    });
    afterEach(() => fixture[Symbol.asyncDispose]());

    const create = (namespace = acme, change: { tags?: Record<string, string>; ttl?: number | null } = {}) =>
      snapshots.create({
        id: randomUUID(),
        namespace,
        imageId: IMAGE,
        imageName: 'app:latest',
        architecture: 'amd64',
        byteSize: 2 ** 40,
        tags: {},
        ttl: null,
        ...change,
      });
    const ids = (rows: readonly { id: string }[] | undefined) => rows?.map(({ id }) => id);

    it('are of an image of their namespace, and found there alone', async () => {
      const made = await create(acme, { tags: { a: 'b' }, ttl: 60 });
      expect(await second.find(acme, made.id)).toEqual(made);
      expect(made).toMatchObject({ byteSize: 2 ** 40, tags: { a: 'b' }, ttl: 60, retiredAt: null });
      expect(await second.find(other, made.id)).toBeUndefined();
      const imageId = parseImageId(`cas-v1:${'2'.repeat(64)}`);
      await expect(snapshots.create({ ...made, id: randomUUID(), imageId })).rejects.toMatchObject({
        code: 'NOT_FOUND',
      });
    });

    it('are listed newest first, by page, tags and whether they are retired', async () => {
      const made = [];
      for (let i = 0; i < 5; i++) made.unshift(await create(acme, { tags: { n: `${i}`, 'odd"\']': `${i % 2}` } }));
      await create(other);
      const first = await second.list(acme, { limit: 2 });
      const rest = await second.list(acme, { limit: 9, after: first!.at(-1)!.id });
      expect([...ids(first)!, ...ids(rest)!]).toEqual(ids(made));
      expect(await second.list(other, { limit: 9, after: made[0]!.id })).toBeUndefined();
      expect(ids(await second.list(acme, { limit: 9, tags: { 'odd"\']': '1' } }))).toEqual([made[1]!.id, made[3]!.id]);
      expect(ids(await second.list(acme, { limit: 9, tags: { 'odd"\']': '1', n: '3' } }))).toEqual([made[1]!.id]);
      expect(await second.list(acme, { limit: 9, tags: { none: '' } })).toEqual([]);
      await snapshots.retire(acme, made[0]!.id);
      expect(ids(await second.list(acme, { limit: 9, excludeRetired: true }))).toEqual(ids(made.slice(1)));
      expect(await second.list(acme, { limit: 9 })).toHaveLength(5);
    });

    it('are retired once, by a call or by their ttl', async () => {
      const made = await create();
      const retired = await snapshots.retire(acme, made.id);
      await delay(5);
      expect((await second.retire(acme, made.id))?.retiredAt).toBe(retired?.retiredAt);
      expect(await snapshots.retire(other, made.id)).toBeUndefined();
      const short = await create(acme, { ttl: 1 });
      expect(short.retiredAt).toBeNull();
      await delay(1100);
      expect((await second.find(acme, short.id))?.retiredAt).toBe(short.createdAt + 1000);
      expect(ids(await second.list(acme, { limit: 9, excludeRetired: true }))).toEqual([]);
    });

    it('have aliases that move, each of its namespace', async () => {
      const [one, two, foreign] = [await create(), await create(), await create(other)];
      expect(await snapshots.setAlias(acme, one.id, 'ns@tag')).toBe(true);
      expect(await snapshots.setAlias(other, foreign.id, 'ns@tag')).toBe(true);
      expect(await snapshots.setAlias(other, one.id, 'x')).toBe(false);
      expect((await second.findByAlias(acme, 'ns@tag'))?.id).toBe(one.id);
      expect(await second.setAlias(acme, two.id, 'ns@tag')).toBe(true);
      expect((await snapshots.findByAlias(acme, 'ns@tag'))?.id).toBe(two.id);
      expect((await snapshots.findByAlias(other, 'ns@tag'))?.id).toBe(foreign.id);
      expect(await snapshots.aliases(acme, one.id)).toEqual([]);
      expect(await snapshots.aliases(acme, two.id)).toMatchObject([{ alias: 'ns@tag', snapshotId: two.id }]);
      expect(await snapshots.removeAlias(acme, 'ns@tag')).toBe(true);
      expect(await snapshots.removeAlias(acme, 'ns@tag')).toBe(false);
      expect(await snapshots.findByAlias(acme, 'ns@tag')).toBeUndefined();
    });
  });
}
