import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { digestOf } from '../testing/make-layout.ts';
import { MemoryStore } from '../testing/memory-store.ts';
import type { CollectRegistryOptions } from './collect.ts';
import { createRegistry, type Registry } from './handler.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const HOUR = 3_600_000;
const CONFIG = Buffer.from('{}');

let store: MemoryStore;
let registry: Registry;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: 1_800_000_000_000 });
  store = new MemoryStore();
  registry = createRegistry({ store });
});
afterEach(() => void vi.useRealTimers());

const later = (ms: number) => void vi.setSystemTime(Date.now() + ms);
const collect = (options: CollectRegistryOptions = { graceMs: HOUR }) => registry.collect(options);
const blobs = () => [...store.objects.keys()].filter((key) => key.startsWith('registry/blobs/')).length;
const marks = () => [...store.objects.keys()].filter((key) => key.includes('unneeded')).length;

async function call(method: string, path: string, body?: Uint8Array, type?: string): Promise<Response> {
  const headers: Record<string, string> = type === undefined ? {} : { 'content-type': type };
  const content = body === undefined ? {} : { body: new Uint8Array(body) };
  return registry.handle(new Request(`http://h/v2/${path}`, { method, headers, ...content }));
}

async function putBlob(repository: string, bytes: Uint8Array) {
  const { status } = await call('POST', `${repository}/blobs/uploads/?digest=${digestOf(bytes)}`, bytes);
  expect(status).toBe(201);
  return { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digestOf(bytes), size: bytes.length };
}

function manifestOf(...layers: readonly Uint8Array[]): Buffer {
  const descriptor = (bytes: Uint8Array) => ({ mediaType: 'a/b', digest: digestOf(bytes), size: bytes.length });
  const parts = { config: descriptor(CONFIG), layers: layers.map(descriptor) };
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, ...parts }));
}

async function push(repository: string, tag: string, ...layers: readonly Buffer[]): Promise<string> {
  for (const bytes of [CONFIG, ...layers]) await putBlob(repository, bytes);
  const manifest = manifestOf(...layers);
  expect((await call('PUT', `${repository}/manifests/${tag}`, manifest, MANIFEST)).status).toBe(201);
  return digestOf(manifest);
}

const [A, B, C] = ['a', 'b', 'c'].map((text) => Buffer.from(text.repeat(1000))) as [Buffer, Buffer, Buffer];

describe('a collection', () => {
  it('removes what a deleted image alone had, after the grace period for the repository and that for the bytes', async () => {
    await push('one', 'v1', A, B);
    const digest = await push('one', 'v2', B, C);
    expect(await collect()).toEqual({ unlinked: 0, removed: 0, removedBytes: 0, waiting: 0 });
    await call('DELETE', `one/manifests/${digest}`);
    expect(await collect()).toMatchObject({ unlinked: 0, waiting: 1 });
    later(HOUR - 1);
    expect(await collect()).toMatchObject({ unlinked: 0, waiting: 1 });
    later(1);
    expect(await collect()).toMatchObject({ unlinked: 1, removed: 0, waiting: 1 });
    expect((await call('GET', `one/blobs/${digestOf(C)}`)).status).toBe(404);
    later(HOUR);
    expect(await collect()).toEqual({ unlinked: 0, removed: 1, removedBytes: C.length, waiting: 0 });
    expect([blobs(), marks()]).toEqual([3, 0]);
    expect((await call('GET', `one/blobs/${digestOf(B)}`)).status).toBe(200);
    await push('one', 'v2', B, C);
    expect((await call('GET', `one/blobs/${digestOf(C)}`)).status).toBe(200);
  });

  it('keeps manifests without a tag, and bytes that another repository has', async () => {
    await push('a', 'v1', A);
    await push('a', 'v1', B);
    const gone = await push('a/b', 'v1', A, B);
    await call('DELETE', `a/b/manifests/${gone}`);
    expect(await collect({ graceMs: 0 })).toEqual({ unlinked: 3, removed: 0, removedBytes: 0, waiting: 0 });
    for (const bytes of [CONFIG, A, B]) expect((await call('GET', `a/blobs/${digestOf(bytes)}`)).status).toBe(200);
    expect((await call('GET', `a/b/blobs/${digestOf(A)}`)).status).toBe(404);
  });

  it.each([
    ['asked for', () => call('HEAD', `one/blobs/${digestOf(A)}`)],
    ['sent again', () => putBlob('one', A)],
    ['mounted', () => call('POST', `one/blobs/uploads/?mount=${digestOf(A)}&from=one`)],
  ])('begins the grace period again for a blob that is %s', async (_, use) => {
    await putBlob('one', A);
    await collect();
    later(HOUR);
    await use();
    expect(await collect()).toMatchObject({ unlinked: 0, waiting: 1 });
    later(HOUR);
    expect(await collect()).toMatchObject({ unlinked: 1 });
  });

  it('gives back what a manifest names that was put while the blob was taken away', async () => {
    for (const bytes of [CONFIG, A]) await putBlob('one', bytes);
    await collect();
    later(HOUR);
    const remove = store.delete.bind(store);
    const link = `_blobs/${digestOf(A).slice(7)}`;
    let answer: Response | undefined;
    vi.spyOn(store, 'delete').mockImplementation(async (key) => {
      // The request had looked at its parts before.
      if (key.endsWith(link) && answer === undefined) {
        answer = await call('PUT', 'one/manifests/v1', manifestOf(A), MANIFEST);
      }
      await remove(key);
    });
    await collect();
    expect(answer?.status).toBe(201);
    expect((await call('GET', `one/blobs/${digestOf(A)}`)).status).toBe(200);
    later(HOUR);
    expect(await collect({ graceMs: 0 })).toMatchObject({ unlinked: 0, removed: 0 });
    expect((await call('GET', 'one/manifests/v1')).status).toBe(200);
  });

  it('does not tag a manifest whose part is taken away while it is put', async () => {
    for (const bytes of [CONFIG, A]) await putBlob('one', bytes);
    const put = store.put.bind(store);
    vi.spyOn(store, 'put').mockImplementation(async (key, body) => {
      // As by the collection of another process that has just looked for manifests.
      if (key.includes('_manifests/')) store.objects.delete(`registry/repositories/one/_blobs/${digestOf(A).slice(7)}`);
      return put(key, body);
    });
    const answer = await call('PUT', 'one/manifests/v1', manifestOf(A), MANIFEST);
    expect(answer.status).toBe(404);
    expect((await call('GET', 'one/manifests/v1')).status).toBe(404);
  });

  it('lets an upload finish that it meets, and uploads meet no half removal', async () => {
    await push('one', 'v1');
    for (let round = 0; round < 20; round++) {
      const layer = Buffer.from(`layer ${round % 3}`);
      const [digest] = await Promise.all([
        push('one', `t${round}`, layer),
        ...Array.from({ length: 4 }, () => collect({ graceMs: 0 })),
      ]);
      expect((await call('GET', `one/blobs/${digestOf(layer)}`)).status).toBe(200);
      await call('DELETE', `one/manifests/${digest}`);
    }
    await collect({ graceMs: 0 });
    expect(blobs()).toBe(1);
  });

  it('of another process loses no upload of the very bytes that it removes', async () => {
    const others = Array.from({ length: 2 }, () => createRegistry({ store }));
    await push('one', 'v1');
    for (let round = 0; round < 40; round++) {
      const layer = Buffer.from(`layer ${round % 3}`);
      const [digest] = await Promise.all([
        push('one', `t${round}`, layer),
        ...others.map((other) => other.collect({ graceMs: 0 })),
        ...others.map((other) => other.collect({ graceMs: 0 })),
      ]);
      expect((await call('GET', `one/blobs/${digestOf(layer)}`)).status).toBe(200);
      await call('DELETE', `one/manifests/${digest}`);
    }
    await collect({ graceMs: 0 });
    expect(blobs()).toBe(1);
    expect([...store.objects.keys()].filter((key) => /\/(using|removing)\//.test(key))).toEqual([]);
  });

  it('of another process is waited for, at whatever point of a removal an upload meets it', async () => {
    const other = createRegistry({ store });
    const delayed = store.delete.bind(store);
    for (const part of ['_blobs/', 'blobs/sha256', 'unneeded/sha256']) {
      await putBlob('one', A);
      let uploaded: Promise<unknown> | undefined;
      vi.spyOn(store, 'delete').mockImplementation(async (key) => {
        const isPart = key.includes(part) && key.includes(digestOf(A).slice(7));
        if (isPart && uploaded === undefined) {
          uploaded = putBlob('one', A);
          // Long enough for the upload to end, were nothing to hold it.
          for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
        }
        await delayed(key);
      });
      for (let i = 0; i < 4; i++) {
        await other.collect({ graceMs: HOUR });
        if (uploaded !== undefined) break;
        later(HOUR);
      }
      vi.restoreAllMocks();
      expect(uploaded).toBeDefined();
      await uploaded;
      expect((await call('GET', `one/blobs/${digestOf(A)}`)).status).toBe(200);
    }
  });

  it('leaves alone what another process says it uses, and takes what it left behind for old after a day', async () => {
    await putBlob('one', A);
    const note = `registry/using/sha256/${digestOf(A).slice(7)}/killed`;
    store.objects.set(note, Buffer.from(String(Date.now())));
    for (let i = 0; i < 3; i++) await collect({ graceMs: 0 });
    expect(blobs()).toBe(1);
    later(24 * HOUR + 1);
    for (let i = 0; i < 3; i++) await collect({ graceMs: 0 });
    expect(blobs()).toBe(0);
    expect(store.objects.has(note)).toBe(false);
  });

  it('that was killed while it removed something holds an upload up for a minute at most', async () => {
    const note = `registry/removing/sha256/${digestOf(A).slice(7)}/killed`;
    store.objects.set(note, Buffer.from(String(Date.now())));
    let done = false;
    const upload = putBlob('one', A).then(() => (done = true));
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    expect(done).toBe(false);
    later(60_001);
    await upload;
    expect((await call('GET', `one/blobs/${digestOf(A)}`)).status).toBe(200);
    expect(store.objects.has(note)).toBe(false);
  });

  it('removes uploads that were given up, and removes nothing when a manifest cannot be read', async () => {
    await call('POST', 'one/blobs/uploads/');
    later(25 * HOUR);
    await collect();
    expect(store.objects.size).toBe(0);
    await push('one', 'v1', A);
    const key = [...store.objects.keys()].find((each) => each.includes('_manifests/'))!;
    store.objects.set(key, Buffer.from(`${MANIFEST}\n{`));
    await expect(collect({ graceMs: 0 })).rejects.toThrow();
    expect(blobs()).toBe(2);
  });

  it('stops when it is told to', async () => {
    await push('one', 'v1', A);
    const signal = AbortSignal.abort(new Error('enough'));
    vi.spyOn(store, 'list').mockImplementation(async function* () {
      signal.throwIfAborted();
      yield { key: '', sizeBytes: 0 };
    });
    await expect(collect({ signal })).rejects.toThrow('enough');
  });
});
