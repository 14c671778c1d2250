import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { digestOf } from '../testing/make-layout.ts';
import { MemoryStore } from '../testing/memory-store.ts';
import { createRegistry, type Registry } from './handler.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const A = Buffer.from('a'.repeat(1000));
const HEX = digestOf(A).slice(7);
const LINK = `registry/repositories/one/_blobs/${HEX}`;
const LINK_MARK = `registry/repositories/one/_unneeded/${HEX}`;
const BLOB = `registry/blobs/sha256/${HEX}`;
const BLOB_MARK = `registry/unneeded/sha256/${HEX}`;

let store: MemoryStore;
let registry: Registry;
/** As that of another process on the same store. */
let other: Registry;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: 1_800_000_000_000 });
  store = new MemoryStore();
  registry = createRegistry({ store });
  other = createRegistry({ store });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const later = (ms: number) => void vi.setSystemTime(Date.now() + ms);
const collect = (graceMs = HOUR) => registry.collect({ graceMs });
const mark = (key: string, at: number) => void store.objects.set(key, Buffer.from(String(at)));

async function call(method: string, path: string, body?: Uint8Array, at = registry): Promise<Response> {
  const content = body === undefined ? {} : { body: new Uint8Array(body), headers: { 'content-type': MANIFEST } };
  return at.handle(new Request(`http://h/v2/one/${path}`, { method, ...content }));
}

async function putBlob(bytes: Uint8Array, at = registry): Promise<void> {
  expect((await call('POST', `blobs/uploads/?digest=${digestOf(bytes)}`, bytes, at)).status).toBe(201);
}

const isThere = async () => (await call('GET', `blobs/${digestOf(A)}`)).status === 200;

/** Runs an action when the store is first asked for a key in one of these ways, before it answers. */
function before(method: 'put' | 'get' | 'head' | 'delete', key: string, action: () => Promise<unknown>): void {
  const original = store[method].bind(store) as (...args: unknown[]) => Promise<never>;
  let done = false;
  vi.spyOn(store, method).mockImplementation(async (...args: unknown[]) => {
    if (args[0] === key && !done) {
      done = true;
      await action();
    }
    return original(...args);
  });
}

/** The same, once the store has answered. */
function after(method: 'get', key: string, action: () => Promise<unknown>): void {
  const original = store[method].bind(store);
  let done = false;
  vi.spyOn(store, method).mockImplementation(async (...args) => {
    const answer = await original(...args);
    if (args[0] === key && !done) {
      done = true;
      await action();
    }
    return answer;
  });
}

describe('the marks of a collection', () => {
  it.each([
    ['asked for', () => call('HEAD', `blobs/${digestOf(A)}`)],
    ['sent again', () => putBlob(A)],
  ])('count no more for a blob that is %s after they were read', async (_, use) => {
    await putBlob(A);
    await collect();
    later(HOUR);
    after('get', LINK_MARK, use);
    expect(await collect()).toMatchObject({ unlinked: 0 });
    expect(store.objects.has(LINK)).toBe(true);
    expect(await collect()).toMatchObject({ unlinked: 0, waiting: 1 });
  });

  it('count no more for bytes that a repository gets in another process just before they are removed', async () => {
    await putBlob(A);
    store.objects.delete(LINK);
    await collect();
    later(HOUR);
    const put = store.put.bind(store);
    let sent = false;
    vi.spyOn(store, 'put').mockImplementation(async (...args) => {
      if (args[0].startsWith(`registry/removing/sha256/${HEX}/`) && !sent) {
        sent = true;
        await putBlob(A, other);
      }
      return put(...args);
    });
    expect(await collect()).toMatchObject({ removed: 0 });
    expect(sent).toBe(true);
    expect(await isThere()).toBe(true);
  });

  it('do not take bytes that a repository got after it was looked through', async () => {
    const list = store.list.bind(store);
    let sent = false;
    vi.spyOn(store, 'list').mockImplementation(async function* (prefix) {
      // All repositories have been looked through, the marks come next.
      if (prefix === 'registry/unneeded/sha256/' && !sent) {
        sent = true;
        await putBlob(A);
      }
      yield* list(prefix);
    });
    expect(await collect(0)).toMatchObject({ removed: 0 });
    expect(sent).toBe(true);
    expect(await isThere()).toBe(true);
  });

  it('go when a manifest names the blob, so that they do not count once it is deleted', async () => {
    await putBlob(A);
    await collect();
    const size = A.length;
    const config = { mediaType: 'a/b', digest: digestOf(A), size };
    const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [] }));
    expect((await call('PUT', 'manifests/v1', manifest)).status).toBe(201);
    later(HOUR);
    expect(await collect()).toMatchObject({ unlinked: 0, waiting: 0 });
    await call('DELETE', `manifests/${digestOf(manifest)}`);
    expect(await collect()).toMatchObject({ unlinked: 0, waiting: 1 });
  });

  it('go when what they are about is gone or has come back', async () => {
    await putBlob(A);
    await collect();
    expect(store.objects.has(LINK_MARK)).toBe(true);
    await call('DELETE', `blobs/${digestOf(A)}`);
    await collect();
    expect(store.objects.has(LINK_MARK)).toBe(false);
    expect(store.objects.has(BLOB_MARK)).toBe(true);
    store.objects.delete(BLOB);
    await collect();
    expect(store.objects.size).toBe(0);
    await putBlob(A);
    mark(BLOB_MARK, Date.now() - DAY);
    await collect();
    expect(store.objects.has(BLOB_MARK)).toBe(false);
    expect(await isThere()).toBe(true);
  });

  it('of a clock that was set back are made anew', async () => {
    await putBlob(A);
    later(365 * DAY);
    await collect();
    later(-365 * DAY);
    expect(await collect()).toMatchObject({ unlinked: 0, waiting: 1 });
    later(HOUR);
    expect(await collect()).toMatchObject({ unlinked: 1 });
  });
});

describe('a blob in use', () => {
  it('is not taken by the collection of another process, however far its upload is', async () => {
    before('put', LINK, async () => {
      for (let i = 0; i < 3; i++) await other.collect({ graceMs: 0 });
    });
    await putBlob(A);
    expect(await isThere()).toBe(true);
  });

  it('is not taken while it is given to another repository', async () => {
    await putBlob(A);
    before('put', `registry/repositories/two/_blobs/${HEX}`, async () => {
      for (let i = 0; i < 3; i++) await other.collect({ graceMs: 0 });
    });
    const mount = `http://h/v2/two/blobs/uploads/?mount=${digestOf(A)}&from=one`;
    expect((await registry.handle(new Request(mount, { method: 'POST' }))).status).toBe(201);
    expect((await registry.handle(new Request(`http://h/v2/two/blobs/${digestOf(A)}`))).status).toBe(200);
  });

  it('stays in use until the last of several requests is done with it', async () => {
    let first: Promise<void> | undefined;
    const put = store.put.bind(store);
    let links = 0;
    vi.spyOn(store, 'put').mockImplementation(async (...args) => {
      if (args[0] === LINK && ++links === 2) {
        await first;
        for (let i = 0; i < 3; i++) await other.collect({ graceMs: 0 });
      }
      return put(...args);
    });
    first = putBlob(A);
    const second = putBlob(A);
    await Promise.all([first, second]);
    expect(links).toBe(2);
    expect(await isThere()).toBe(true);
  });

  it('is not taken by a removal that was held up for so long that others take it for left behind', async () => {
    await putBlob(A);
    await collect();
    later(HOUR);
    let now = performance.now();
    vi.spyOn(performance, 'now').mockImplementation(() => now);
    const list = store.list.bind(store);
    vi.spyOn(store, 'list').mockImplementation((prefix) => {
      if (prefix === `registry/using/sha256/${HEX}/`) now += 20_001;
      return list(prefix);
    });
    expect(await collect()).toMatchObject({ unlinked: 0 });
    expect(await isThere()).toBe(true);
  });

  it('is what a note says that is neither gone when it is read nor of a far future', async () => {
    const note = `registry/removing/sha256/${HEX}/gone`;
    mark(note, Date.now());
    before('get', note, () => store.delete(note));
    await putBlob(A);
    mark(`registry/using/sha256/${HEX}/future`, Date.now() + 2 * DAY);
    for (let i = 0; i < 3; i++) await collect(0);
    expect(store.objects.size).toBe(0);
  });

  it('does not stay so for ever when a process was killed, nor does a removal', async () => {
    const notes = ['using', 'removing'].map((kind) => `registry/${kind}/sha256/${'0'.repeat(64)}/killed`);
    for (const note of notes) mark(note, Date.now());
    await collect();
    expect(notes.map((note) => store.objects.has(note))).toEqual([true, true]);
    later(60_001);
    await collect();
    expect(notes.map((note) => store.objects.has(note))).toEqual([true, false]);
    later(DAY);
    await collect();
    expect(notes.map((note) => store.objects.has(note))).toEqual([false, false]);
  });
});
