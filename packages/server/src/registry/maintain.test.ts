import { createHash } from 'node:crypto';

import { parseNamespace, type DecantError, type ObjectStore } from '@decant/core';
import { createMemoryObjectStore } from '@decant/dataplane';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { createApiKey } from '../auth.ts';
import { openSqliteMetadata } from '../metadata/sqlite-store.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { startRegistryMaintenance } from './maintain.ts';
import { createRegistry, type MountedRegistry } from './registry.ts';

const DAY = 24 * 3_600_000;
let metadata: MetadataStore;
let store: ObjectStore;
let registry: MountedRegistry;
let errors: DecantError[];
beforeEach(async () => {
  metadata = await openSqliteMetadata(':memory:');
  store = createMemoryObjectStore();
  registry = createRegistry({ metadata, store });
  errors = [];
  vi.useFakeTimers({ toFake: ['Date'] });
});
afterEach(async () => {
  vi.useRealTimers();
  await metadata[Symbol.asyncDispose]();
});

/** Puts a blob that no manifest names into the registry of a namespace. */
async function pushBlob(namespace: string): Promise<void> {
  const { key } = await createApiKey(metadata, parseNamespace(namespace));
  const digest = `sha256:${createHash('sha256').update(namespace).digest('hex')}`;
  const url = `http://h/v2/${namespace}/app/blobs/uploads/?digest=${digest}`;
  const headers = { authorization: `Bearer ${key}` };
  const { status } = await registry.handle(new Request(url, { method: 'POST', body: namespace, headers }));
  expect(status).toBe(201);
}

async function keysWith(part: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list('')) if (key.includes(part)) keys.push(key);
  return keys;
}

const start = (everyMs?: number) =>
  startRegistryMaintenance({ metadata, store, registry, everyMs, onError: (error) => errors.push(error) });

async function settled(check: () => Promise<void>): Promise<void> {
  await vi.waitFor(check, { timeout: 60_000, interval: 5 });
}

it('reclaims what nothing needs, in every namespace, over the days', async () => {
  await Promise.all([pushBlob('one'), pushBlob('two')]);
  await using _ = start(20);
  await settled(async () => expect(await keysWith('/_unneeded/')).toHaveLength(2));
  expect(await keysWith('/blobs/sha256/')).toHaveLength(2);
  vi.setSystemTime(Date.now() + DAY);
  await settled(async () => expect(await keysWith('/_blobs/')).toEqual([]));
  vi.setSystemTime(Date.now() + DAY);
  await settled(async () => expect(await keysWith('registry/')).toEqual([]));
  expect(errors).toEqual([]);
});

it('collects once an interval, however many processes there are', async () => {
  await pushBlob('one');
  const collect = vi.spyOn(registry, 'collect');
  {
    await using _ = start();
    await settled(async () => expect(collect).toHaveBeenCalledTimes(1));
  }
  {
    await using _ = start();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect(collect).toHaveBeenCalledTimes(1);
  vi.setSystemTime(Date.now() + 3_600_000);
  await using _ = start();
  await settled(async () => expect(collect).toHaveBeenCalledTimes(2));
});

it('collects also when the last time is one to come, and leaves no timer when it is over', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'setInterval', 'clearInterval'] });
  await store.put('maintenance/registry', new TextEncoder().encode(String(Date.now() + DAY)));
  await pushBlob('one');
  {
    await using _ = start();
    await settled(async () => expect(await keysWith('/_unneeded/')).toHaveLength(1));
    expect(vi.getTimerCount()).toBe(1);
  }
  expect(vi.getTimerCount()).toBe(0);
});

it('reports what fails, and tries again', async () => {
  await pushBlob('one');
  vi.spyOn(registry, 'collect').mockRejectedValueOnce(new Error('broken'));
  await using _ = start(20);
  await settled(async () => expect(errors).toHaveLength(1));
  vi.setSystemTime(Date.now() + 20);
  await settled(async () => expect(await keysWith('/_unneeded/')).toHaveLength(1));
});

it('waits as long as it is told, and the registry keeps its limits', async () => {
  await pushBlob('one');
  await using _ = startRegistryMaintenance({ metadata, store, registry, everyMs: 20, graceMs: 1000 });
  await settled(async () => expect(await keysWith('/_unneeded/')).toHaveLength(1));
  vi.setSystemTime(Date.now() + 1000);
  await settled(async () => expect(await keysWith('/_blobs/')).toEqual([]));
  registry = createRegistry({ metadata, store }, { limits: { blobBytes: 2 } });
  await expect(pushBlob('two')).rejects.toThrow('413');
});
