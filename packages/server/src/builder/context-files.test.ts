import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { gzipSync } from 'node:zlib';

import { memoryEntries, packMemoryContext, type MemoryFile } from '@decant/context';
import { CONTEXT_FILE_HEADER_BYTES, parseNamespace, type ContextManifest } from '@decant/core';
import { createFileObjectStore, createMemoryObjectStore } from '@decant/dataplane';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { openSqliteMetadata } from '../metadata/sqlite-store.ts';
import { openTestServer, type Caller, type TestServer } from '../server.fixture.ts';
import { openContextArchive } from './context-files-archive.ts';
import { readPack } from './context-files-pack.ts';

const ORIGIN = 'http://server.test';
const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');
const MANY: MemoryFile[] = Array.from({ length: 300 }, (_, index) => ({
  path: `dir-${index % 7}/file-${index}`,
  content: `content ${index % 250}\n`.repeat(index % 40),
  mode: index % 2 === 0 ? 0o644 : 0o755,
}));

function manifestOf(files: readonly MemoryFile[]): ContextManifest {
  const { entries, read } = memoryEntries(files);
  return {
    version: 1,
    entries: entries.map((entry) => {
      const { path, type, mode, sizeBytes } = entry;
      if (type !== 'file') return { path, type: 'directory' as const, mode };
      return { path, type, mode, size_bytes: sizeBytes, sha256: sha256([...read(entry)][0]!) };
    }),
  };
}

function frame(content: string | Uint8Array, digest = sha256(content)): Buffer {
  const bytes = Buffer.from(content);
  const header = Buffer.alloc(CONTEXT_FILE_HEADER_BYTES);
  header.write(digest, 'hex');
  header.writeBigUInt64BE(BigInt(bytes.length), 32);
  return Buffer.concat([header, bytes]);
}

const storeOf = ({ directory }: TestServer) =>
  createFileObjectStore({ directory: join(directory, 'objects'), fsync: 'never' });

async function temporaryFolder(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'context-files-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

const contentOf = ({ content }: MemoryFile) => Buffer.from(content);

describe('contexts that are sent as their files', () => {
  let test: TestServer;
  let caller: Caller;
  let other: Caller;

  beforeEach(async () => {
    test = await openTestServer();
    caller = await test.caller('acme');
    other = await test.caller('other');
  });
  afterEach(() => test[Symbol.asyncDispose]());

  const post = (as: Caller, path: string, body: Uint8Array, gzip = true) =>
    as.fetch(`${ORIGIN}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${as.key}`, ...(gzip ? { 'content-encoding': 'gzip' } : {}) },
      body: Uint8Array.from(gzip ? gzipSync(body) : body),
    });
  const ask = async (as: Caller, manifest: unknown) => {
    const response = await post(as, '/builds/contexts', Buffer.from(JSON.stringify(manifest)));
    const body = (await response.json()) as { context_id: string; missing: string[]; code?: string };
    return { status: response.status, body };
  };

  it('asks for each missing file once, and for none that have come', async () => {
    const manifest = manifestOf(MANY);
    const first = await ask(caller, manifest);
    expect(first.status).toBe(200);
    expect(first.body.context_id).toBe(sha256(JSON.stringify(manifest)));
    const all = new Map(MANY.map((file) => [sha256(contentOf(file)), contentOf(file)]));
    expect(new Set(first.body.missing)).toEqual(new Set(all.keys()));
    expect(first.body.missing).toHaveLength(all.size);
    const half = [...all.values()].slice(0, 100);
    const sent = await post(
      caller,
      `/builds/contexts/${first.body.context_id}/files`,
      Buffer.concat(half.map((b) => frame(b))),
    );
    expect(sent.status).toBe(204);
    expect((await ask(caller, manifest)).body.missing).toHaveLength(all.size - 100);
    // Whoever asks in another namespace learns nothing of it.
    expect((await ask(other, manifest)).body.missing).toHaveLength(all.size);
    expect((await post(other, `/builds/contexts/${sha256('x')}/files`, frame('x'))).status).toBe(404);
  });

  it('gives the archive that packing gives, in whatever order the files came', async () => {
    const manifest = manifestOf(MANY);
    const { body } = await ask(caller, manifest);
    const contents = new Map(MANY.map((file) => [sha256(contentOf(file)), contentOf(file)]));
    const order = body.missing.toSorted(() => Math.random() - 0.5);
    for (let at = 0; at < order.length; at += 60) {
      const pack = Buffer.concat(order.slice(at, at + 60).map((digest) => frame(contents.get(digest)!)));
      expect((await post(caller, `/builds/contexts/${body.context_id}/files`, pack)).status).toBe(204);
    }
    const { metadata } = test.server;
    const store = storeOf(test);
    const { stream, tarBytes } = await openContextArchive(
      { store, files: metadata.contextFiles },
      parseNamespace('acme'),
      body.context_id,
    );
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const piece of stream) {
      hash.update(piece);
      bytes += piece.length;
    }
    const packed = packMemoryContext(MANY);
    for await (const piece of packed.stream) void piece;
    expect(hash.digest('hex')).toBe(await packed.digest);
    expect(bytes).toBe(tarBytes);
  });

  it('shows nothing of a pack with one wrong digest, one that is cut, or one that was not asked for', async () => {
    const files: MemoryFile[] = [
      { path: 'a', content: 'first' },
      { path: 'b', content: 'second' },
    ];
    const manifest = manifestOf(files);
    const { body } = await ask(caller, manifest);
    const path = `/builds/contexts/${body.context_id}/files`;
    const wrong = await post(caller, path, Buffer.concat([frame('first'), frame('sekond', sha256('second'))]));
    expect(wrong.status).toBe(422);
    expect(await wrong.json()).toMatchObject({ code: 'CONTEXT_FILE_MISMATCH', details: { offset: 85 } });
    const cut = Buffer.concat([frame('first'), frame('second')]);
    for (const at of [20, 43, 60, cut.length - 1]) {
      expect((await post(caller, path, cut.subarray(0, at))).status).toBe(400);
      const compressed = gzipSync(cut).subarray(0, at);
      expect((await post(caller, path, compressed, false)).status).toBe(400);
    }
    expect((await post(caller, path, frame('something else'))).status).toBe(400);
    expect((await post(caller, path, frame('firs', sha256('first')))).status).toBe(400);
    const broken = await caller.fetch(`${ORIGIN}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${caller.key}`, 'content-encoding': 'gzip' },
      body: Uint8Array.from([1, 2, 3, 4]),
    });
    expect(broken.status).toBe(400);
    expect((await ask(caller, manifest)).body.missing).toHaveLength(2);
    // Nothing was left in the store either, but the manifest.
    const keys: string[] = [];
    for await (const { key } of storeOf(test).list('ns/acme/')) keys.push(key);
    expect(keys).toEqual([`ns/acme/contexts/${body.context_id}`]);
  });

  it('refuses manifests that are none', async () => {
    const [entry] = manifestOf([{ path: 'a', content: 'x' }]).entries;
    for (const manifest of [
      [],
      { version: 2, entries: [] },
      { version: 1, entries: [{ ...entry, mode: 0o10000 }] },
      { version: 1, entries: [{ ...entry, sha256: 'x' }] },
      { version: 1, entries: [{ ...entry, more: 1 }] },
      { version: 1, entries: [{ path: 'l', type: 'symlink', mode: 0o777 }] },
    ]) {
      expect((await ask(caller, manifest)).status).toBe(400);
    }
    const huge = await ask(caller, { version: 1, entries: [{ ...entry, size_bytes: 2 ** 50 }] });
    expect([huge.status, huge.body.code]).toEqual([413, 'BUILD_UNPACKED_BYTES']);
    // A bomb is read no further than its bound.
    const bomb = await post(caller, '/builds/contexts', Buffer.alloc(65 * 1024 * 1024));
    expect([bomb.status, await bomb.json()]).toMatchObject([413, { code: 'LIMIT_EXCEEDED' }]);
    const odd = await caller.fetch(`${ORIGIN}/builds/contexts`, {
      method: 'POST',
      headers: { authorization: `Bearer ${caller.key}`, 'content-encoding': 'br' },
      body: JSON.stringify({ version: 1, entries: [] }),
    });
    expect([odd.status, await odd.json()]).toMatchObject([400, { code: 'USAGE', details: { encoding: 'br' } }]);
  });

  it('refuses more entries than a context may have', async () => {
    await using small = await openTestServer({ builder: { limits: { contextFiles: 2 } } });
    const as = await small.caller('acme');
    const { entries } = manifestOf(['a', 'b', 'c'].map((path) => ({ path, content: path })));
    expect((await ask(as, { version: 1, entries: entries.slice(0, 2) })).status).toBe(200);
    const more = await ask(as, { version: 1, entries });
    expect([more.status, more.body]).toMatchObject([413, { code: 'BUILD_CONTEXT_FILES', details: { limit: 2 } }]);
  });

  it('forgets contexts that nobody has used for a week, and their files, when another one comes', async () => {
    const [old, young] = ['old', 'young'].map((content) => manifestOf([{ path: 'a', content }]));
    // The look for such contexts is once in an hour: the one of this server's first call is the one that is to find it.
    await using first = await openTestServer();
    const directory = first.directory;
    const { metadata } = first.server;
    const namespace = parseNamespace('acme');
    const store = storeOf(first);
    const key = `ns/acme/contexts/${sha256(JSON.stringify(old))}`;
    await store.put(key, Buffer.from(JSON.stringify(old)));
    await store.put('ns/acme/context-files/x', frame('old'));
    await metadata.contextFiles.add(namespace, { key, sizeBytes: 1, files: [] });
    const files = [{ digest: sha256('old'), offset: 40, sizeBytes: 3 }];
    await metadata.contextFiles.add(namespace, { key: 'ns/acme/context-files/x', sizeBytes: 43, files });
    using clock = new DatabaseSync(join(directory, 'metadata.sqlite'));
    clock.exec(`UPDATE context_objects SET used_at = used_at - ${8 * 24 * 3_600_000}`);
    const answer = await ask(await first.caller('acme'), young);
    const keys: string[] = [];
    for await (const { key: each } of store.list('ns/acme/context')) keys.push(each);
    expect(keys).toEqual([`ns/acme/contexts/${answer.body.context_id}`]);
    // The new one is known, or it would stay for ever.
    expect(clock.prepare('SELECT object_key FROM context_objects').all()).toEqual([{ object_key: keys[0] }]);
  });

  it('needs a key', async () => {
    const response = await test.server.handle(new Request(`${ORIGIN}/builds/contexts`, { method: 'POST', body: '{}' }));
    expect(response.status).toBe(401);
  });
});

describe('readPack', () => {
  it('finds every file at its place, however the bytes are cut, and any flipped byte', async () => {
    const contents = ['', 'a', 'bb', randomBytes(3000).toString('latin1'), 'end', ''].map((text) => Buffer.from(text));
    const pack = Buffer.concat(contents.map((bytes) => frame(bytes)));
    const sizes = new Map(contents.map((bytes) => [sha256(bytes), bytes.length]));
    const readAll = async (bytes: Buffer, cuts: number[]) => {
      const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length];
      async function* pieces() {
        for (let i = 1; i < at.length; i++) yield bytes.subarray(at[i - 1], at[i]);
      }
      const reading = readPack(pieces(), (digest) => sizes.get(digest));
      const out: Uint8Array[] = [];
      for await (const piece of reading.bytes) out.push(piece);
      return { files: reading.files, bytes: Buffer.concat(out) };
    };
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(pack.length), { maxLength: 10 }),
        fc.nat(pack.length - 1),
        fc.integer({ min: 1, max: 255 }),
        async (cuts, at, flip) => {
          const { files, bytes } = await readAll(pack, cuts);
          expect(bytes.equals(pack)).toBe(true);
          for (const [index, { digest, offset, sizeBytes }] of files.entries()) {
            expect(pack.subarray(offset, offset + sizeBytes).equals(contents[index]!)).toBe(true);
            expect(digest).toBe(sha256(contents[index]!));
          }
          const flipped = Buffer.from(pack);
          flipped[at]! ^= flip;
          await expect(readAll(flipped, cuts)).rejects.toThrow(/pack|digest/);
        },
      ),
      { numRuns: 80 },
    );
  });
});

describe('files of contexts in the metadata', () => {
  it('forgets what was not used, and keeps what was', async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, 'metadata.sqlite');
    await using metadata = await openSqliteMetadata(file);
    const { contextFiles } = metadata;
    const acme = parseNamespace('acme');
    const [a, b] = [sha256('a'), sha256('b')];
    const HOUR_MS = 3_600_000;
    using clock = new DatabaseSync(file);
    /** Makes all that is there two hours older. */
    const age = () => clock.exec(`UPDATE context_objects SET used_at = used_at - ${2 * HOUR_MS}`);
    await contextFiles.add(acme, { key: 'one', sizeBytes: 81, files: [{ digest: a, offset: 40, sizeBytes: 1 }] });
    await contextFiles.add(acme, { key: 'two', sizeBytes: 81, files: [{ digest: b, offset: 40, sizeBytes: 1 }] });
    // What is there already stays where it is.
    await contextFiles.add(acme, { key: 'three', sizeBytes: 81, files: [{ digest: a, offset: 7, sizeBytes: 1 }] });
    expect((await contextFiles.locate(acme, [a, b, sha256('c')])).get(a)).toEqual({
      objectKey: 'one',
      objectBytes: 81,
      offset: 40,
      sizeBytes: 1,
    });
    expect((await contextFiles.locate(parseNamespace('other'), [a])).size).toBe(0);
    expect(await contextFiles.expire(HOUR_MS)).toEqual([]);
    age();
    // Sent again, and then asked for again: both are uses.
    await contextFiles.add(acme, { key: 'two', sizeBytes: 81, files: [] });
    expect((await contextFiles.expire(HOUR_MS)).toSorted()).toEqual(['one', 'three']);
    age();
    expect([...(await contextFiles.locate(acme, [a, b])).keys()]).toEqual([b]);
    expect(await contextFiles.expire(HOUR_MS)).toEqual([]);
    age();
    expect(await contextFiles.expire(HOUR_MS)).toEqual(['two']);
    expect((await contextFiles.locate(acme, [a, b])).size).toBe(0);
  });
});

describe('openContextArchive', () => {
  it('says how many files are missing', async () => {
    await using metadata = await openSqliteMetadata(':memory:');
    const store = createMemoryObjectStore();
    const acme = parseNamespace('acme');
    const manifest = Buffer.from(JSON.stringify(manifestOf([{ path: 'a', content: 'x' }])));
    await store.put(`ns/acme/contexts/${sha256(manifest)}`, manifest);
    const open = (id: string) => openContextArchive({ store, files: metadata.contextFiles }, acme, id);
    await expect(open(sha256(manifest))).rejects.toMatchObject({ code: 'CONFLICT', details: { missing: 1 } });
    await expect(open(sha256('no'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});
