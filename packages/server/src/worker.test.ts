import { createPublicKey, verify } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';

import { createZstdCodec, loadNodeHashProvider } from '@decant/cas/node';
import { canonicalJson, DecantError, parseImageId, parseNamespace, type BuildId, type ObjectStore } from '@decant/core';
import { createMemoryObjectStore } from '@decant/dataplane';
import { recordKey } from '@decant/ingest';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { openSqliteMetadata } from './metadata/sqlite-store.ts';
import { INGEST_JOB, type BuildRow, type MetadataStore } from './metadata/store.ts';
import { chunkOf, stagedImage } from './server.fixture.ts';
import { startWorker, type Worker } from './worker.ts';

const acme = parseNamespace('acme');
let directory: string;
let metadata: MetadataStore;
let store: ObjectStore;
let errors: DecantError[];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'worker-test-'));
  metadata = await openSqliteMetadata(':memory:');
  await metadata.keys.ensureNamespace(acme);
  store = createMemoryObjectStore();
  errors = [];
});
afterEach(async () => {
  vi.useRealTimers();
  await metadata[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const start = (change: { store?: ObjectStore; metadata?: MetadataStore } = {}): Worker =>
  startWorker({
    metadata,
    store,
    hash: loadNodeHashProvider,
    codec: createZstdCodec(),
    scratchDirectory: directory,
    idleMs: 10,
    onError: (error) => errors.push(error),
    ...change,
  });

/** A build whose upload is complete and waits to be admitted. */
async function ready(id: string): Promise<BuildRow> {
  const build = await metadata.builds.create({
    id: id as BuildId,
    namespace: acme,
    snapshotId: 's',
    name: id,
    tag: 'latest',
    format: 'cas-streaming',
    request: {},
  });
  const { manifest, pack } = await stagedImage([chunkOf(1)]);
  await store.put(`ns/acme/staging/${id}/packs/000000`, pack);
  await store.put(`ns/acme/staging/${id}/manifest`, manifest.bytes);
  return metadata.builds.beginIngest(acme, build.id, {
    snapshotId: 's',
    snapshotUri: 'u',
    snapshotFormatVersion: 'content_addressed_streaming_v1',
    snapshotSizeBytes: manifest.virtualBytes,
    rootfsDiskBytes: 0,
  });
}

async function ended(id: string): Promise<BuildRow> {
  for (let i = 0; i < 6000; i++) {
    const build = await metadata.builds.find(acme, id);
    if (build !== undefined && build.status !== 'ingesting') return build;
    await delay(10);
  }
  throw new Error('the admission did not end');
}

const keys = async (prefix: string) => {
  const found: string[] = [];
  for await (const { key } of store.list(prefix)) found.push(key);
  return found;
};

describe('the worker', () => {
  it('admits what waits, and removes what was staged', async () => {
    await ready('one');
    await using worker = start();
    expect(await ended('one')).toMatchObject({
      status: 'completed',
      template: { imageId: expect.any(String) as string },
    });
    while ((await keys('ns/acme/staging/')).length > 0) await delay(5);
    void worker;
    expect(errors).toEqual([]);
  });

  it('leaves a record of what it admitted, which says what and whose, and is signed', async () => {
    await ready('recorded');
    await using worker = start();
    void worker;
    const { template } = await ended('recorded');
    const id = parseImageId(template!.imageId);
    const text = new TextDecoder().decode(await store.get(recordKey(acme, id)));
    const { record, signature } = JSON.parse(text) as { record: object; signature: Record<string, string> };
    expect(record).toMatchObject({ image: id, namespace: 'acme', build: 'recorded', name: 'recorded:latest' });
    const spki = Buffer.from(signature['publicKey']!, 'base64');
    const key = createPublicKey({ key: spki, format: 'der', type: 'spki' });
    const value = Buffer.from(signature['value']!, 'base64');
    expect(verify(null, Buffer.from(canonicalJson(record)), key, value)).toBe(true);
    const other = canonicalJson({ ...record, namespace: 'other' });
    expect(verify(null, Buffer.from(other), key, value)).toBe(false);
  });

  it('stops when its claim is lost, and leaves what becomes of the job to others', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await ready('taken');
    const inside = Promise.withResolvers<void>();
    const stopped = Promise.withResolvers<void>();
    const slow: ObjectStore = {
      ...store,
      put: (_key, _body, options) =>
        new Promise((_, reject) => {
          options?.signal?.addEventListener('abort', () => {
            stopped.resolve();
            reject(new DecantError('ROOTFS_INVALID', 'cut off'));
          });
          inside.resolve();
        }),
    };
    let claims = 0;
    const jobs = new Proxy(metadata.jobs, {
      get(target, name) {
        if (name === 'renew') return async () => false;
        // Only once: what is looked at is what the first claim leaves.
        if (name === 'claim' && ++claims > 1) return async () => undefined;
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
      },
    });
    const worker = start({ store: slow, metadata: { ...metadata, jobs } });
    await inside.promise;
    vi.advanceTimersByTime(5000);
    await stopped.promise;
    await expect.poll(() => claims).toBeGreaterThan(1);
    expect(vi.getTimerCount()).toBe(0);
    await worker[Symbol.asyncDispose]();
    expect(await metadata.builds.find(acme, 'taken')).toMatchObject({ status: 'ingesting', problem: null });
    // It was not given back either: that is for whoever has it now.
    expect(await metadata.jobs.claim([INGEST_JOB], 1)).toBeUndefined();
    expect(errors).toEqual([]);
  });

  it('gives up uploads that nobody completed within a day, and removes what they staged a day later', async () => {
    const file = join(directory, 'metadata.sqlite');
    await using kept = await openSqliteMetadata(file);
    using clock = new DatabaseSync(file);
    await kept.keys.ensureNamespace(acme);
    for (const id of ['old', 'young']) {
      await kept.builds.create({
        ...({ id: id as BuildId, namespace: acme, snapshotId: 's', name: id, tag: 'latest' } as const),
        ...({ format: 'cas-streaming', request: {} } as const),
      });
      await store.put(`ns/acme/staging/${id}/manifest`, new Uint8Array(1));
    }
    const age = () => clock.exec(`UPDATE builds SET updated_at = updated_at - 90000000 WHERE id = 'old'`);
    age();
    {
      await using worker = start({ metadata: kept });
      void worker;
      await expect
        .poll(() => kept.builds.find(acme, 'old'))
        .toMatchObject({ status: 'failed', problem: { code: 'TIMEOUT' } });
    }
    expect(await keys('ns/acme/staging/')).toHaveLength(2);
    age();
    await using worker = start({ metadata: kept });
    void worker;
    await expect.poll(() => keys('ns/acme/staging/')).toEqual(['ns/acme/staging/young/manifest']);
    const removed = () => clock.prepare('SELECT id FROM builds WHERE staging_removed = 1').all();
    await expect.poll(removed).toEqual([{ id: 'old' }]);
    expect(await kept.builds.find(acme, 'young')).toMatchObject({ status: 'prepared' });
  });

  it('takes over the job of a worker that died, once its lease has run out', async () => {
    await ready('orphan');
    expect(await metadata.jobs.claim([INGEST_JOB], 50)).toBeDefined();
    await using worker = start();
    void worker;
    expect(await ended('orphan')).toMatchObject({ status: 'completed' });
  });

  it('gives an unfinished job back at once when it is shut down, whatever the cut-off step throws', async () => {
    await ready('cut');
    let reached: () => void = () => undefined;
    const inside = new Promise<void>((resolve) => (reached = resolve));
    const slow: ObjectStore = {
      ...store,
      put: (_key, _body, options) =>
        new Promise((_, reject) => {
          options?.signal?.addEventListener('abort', () =>
            // A tool that was killed, for example, is taken for one that found a fault.
            reject(new DecantError('ROOTFS_INVALID', 'cut off')),
          );
          reached();
        }),
    };
    const worker = start({ store: slow });
    await inside;
    await worker[Symbol.asyncDispose]();
    expect(await metadata.builds.find(acme, 'cut')).toMatchObject({ status: 'ingesting', problem: null });
    expect(errors).toEqual([]);
    await using next = start();
    void next;
    expect(await ended('cut')).toMatchObject({ status: 'completed' });
  });

  it('tries again what may pass, and fails at once what will not', async () => {
    await ready('flaky');
    let calls = 0;
    const flaky: ObjectStore = {
      ...store,
      put: async (key, body, options) => {
        if (++calls === 1) throw new DecantError('DISK_FULL', 'No space.');
        return store.put(key, body, options);
      },
    };
    {
      await using worker = start({ store: flaky });
      void worker;
      expect(await ended('flaky')).toMatchObject({ status: 'completed' });
    }
    await ready('hopeless');
    await store.put('ns/acme/staging/hopeless/manifest', new Uint8Array(3));
    await using worker = start();
    void worker;
    expect(await ended('hopeless')).toMatchObject({ status: 'failed', problem: { code: 'INGEST_REFUSED' } });
    expect(errors).toEqual([]);
  });

  it('tries what may pass three times, and no more', async () => {
    await ready('full');
    for (let i = 0; i < 2; i++) {
      const job = await metadata.jobs.claim([INGEST_JOB], 60_000);
      await metadata.jobs.release(job!, 0);
    }
    const full: ObjectStore = { ...store, put: () => Promise.reject(new DecantError('DISK_FULL', 'No space.')) };
    await using worker = start({ store: full });
    void worker;
    expect(await ended('full')).toMatchObject({ status: 'failed', problem: { code: 'DISK_FULL' } });
  });

  it('gives up a job that has ended nobody ever knew how, twenty times', async () => {
    await ready('poison');
    for (let i = 0; i < 20; i++) {
      await metadata.jobs.claim([INGEST_JOB], 0);
      await delay(2);
    }
    await using worker = start();
    void worker;
    expect(await ended('poison')).toMatchObject({ status: 'failed', problem: { code: 'INGEST_REFUSED' } });
  });

  it('goes on after a failure of its own, which it reports, and drops jobs it does not understand', async () => {
    await metadata.jobs.enqueue(INGEST_JOB, 'strange', { what: 1 });
    await metadata.jobs.enqueue(INGEST_JOB, 'gone', { namespace: 'acme', buildId: 'none' });
    let failures = 2;
    const failing = new Proxy(metadata.jobs, {
      get(target, name) {
        if (name === 'claim' && failures-- > 0) return () => Promise.reject(new Error('the disk is away'));
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
      },
    });
    await ready('later');
    await using worker = start({ metadata: { ...metadata, jobs: failing } });
    void worker;
    expect(await ended('later')).toMatchObject({ status: 'completed' });
    expect(errors.map(({ message }) => message)).toEqual(['the disk is away', 'the disk is away']);
    while ((await metadata.jobs.claim([INGEST_JOB], 0)) !== undefined) await delay(5);
  });

  it('does not undo an admission whose staged objects cannot be removed', async () => {
    await ready('stuck');
    const stuck: ObjectStore = { ...store, delete: () => Promise.reject(new Error('read-only')) };
    await using worker = start({ store: stuck });
    void worker;
    expect(await ended('stuck')).toMatchObject({ status: 'completed' });
    while (errors.length === 0) await delay(5);
    expect(errors[0]?.message).toBe('read-only');
    expect(await metadata.builds.find(acme, 'stuck')).toMatchObject({ status: 'completed', problem: null });
  });
});
