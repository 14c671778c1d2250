import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { buildFieldsSchema, DecantError, parseNamespace } from '@decant/core';
import { run } from '@decant/core/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { MetadataStoreFixture } from './contract-kit.ts';
import { metadataStoreContract } from './metadata-store.contract.ts';
import { SQLITE_MIGRATIONS } from './migrations.ts';
import { openSqliteMetadata } from './sqlite-store.ts';
import { SqliteDatabase } from './sqlite.ts';

const openTwice = async (): Promise<MetadataStoreFixture> => {
  const directory = await mkdtemp(join(tmpdir(), 'metadata-test-'));
  const path = join(directory, 'metadata.sqlite');
  const [store, second] = await Promise.all([openSqliteMetadata(path), openSqliteMetadata(path)]);
  return {
    store,
    second,
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]();
      await second[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
};
metadataStoreContract('SQLite', openTwice);

describe('the database file', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'metadata-test-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('is private, and is there again when it is opened again', async () => {
    const path = join(directory, 'new', 'metadata.sqlite');
    const store = await openSqliteMetadata(path);
    expect(await store.setting('a', () => 'b')).toBe('b');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(directory, 'new'))).mode & 0o777).toBe(0o700);
    await store[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    const again = await openSqliteMetadata(path);
    expect(await again.setting('a', () => 'c')).toBe('b');
    await again[Symbol.asyncDispose]();
  });

  it('of a newer version, or that is none, is refused and left as it is', async () => {
    const newer = join(directory, 'newer.sqlite');
    const db = new DatabaseSync(newer);
    db.exec(`PRAGMA user_version = ${SQLITE_MIGRATIONS.length + 1}`);
    db.close();
    await expect(openSqliteMetadata(newer)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('newer decant') as string,
    });
    const none = join(directory, 'none.sqlite');
    await writeFile(none, 'x'.repeat(4096));
    await expect(openSqliteMetadata(none)).rejects.toBeInstanceOf(DecantError);
    await expect(openSqliteMetadata(directory)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });

  it('ends builds that wait too long, counted from when they came or were put back', async () => {
    const path = join(directory, 'metadata.sqlite');
    await using store = await openSqliteMetadata(path);
    using clock = new DatabaseSync(path);
    const HOUR_MS = 3_600_000;
    const age = (column: string) => clock.exec(`UPDATE image_builds SET ${column} = ${column} - ${2 * HOUR_MS}`);
    const namespace = parseNamespace('acme');
    const build = {
      ...({ id: 'one', namespace, trust: 'tenant', host: 'h', name: 'app', tag: 'latest', cacheKey: 'app' } as const),
      ...{ fields: buildFieldsSchema.parse({ image_name: 'app' }), contextBytes: 1, digest: 'd' },
      idempotencyKey: undefined,
    };
    const problem = { code: 'X', message: '' };
    const recover = () =>
      store.imageBuilds.recover({
        ...{ mostAttempts: 2, queueMs: HOUR_MS, lost: problem, cancelled: problem },
        expired: { code: 'BUILD_QUEUE_EXPIRED', message: '' },
      });
    const claim = async () =>
      (await store.imageBuilds.claim({
        ...({ trusts: ['tenant'], running: 1, runningPerNamespace: 1 } as const),
        leaseMs: HOUR_MS,
      }))!;
    await store.imageBuilds.submit(build, { queued: 9, repeatMs: 0 });
    // It ran for two hours, then its worker was shut down; and again, then its worker was killed.
    const first = await claim();
    age('created_at');
    await store.imageBuilds.release(first);
    expect(await recover()).toEqual([]);
    await claim();
    age('lease_until');
    // The first look puts it back.
    for (let i = 0; i < 2; i++) expect(await recover()).toEqual([]);
    expect(await store.imageBuilds.find(namespace, 'one')).toMatchObject({ status: 'queued', attempt: 1 });
    // However often a build was begun, it does not wait for ever.
    age('lease_until');
    expect(await recover()).toEqual(['one']);
    expect(await store.imageBuilds.find(namespace, 'one')).toMatchObject({ problem: { code: 'BUILD_QUEUE_EXPIRED' } });
  });

  it('can be opened while another connection writes', async () => {
    const path = join(directory, 'metadata.sqlite');
    const first = await SqliteDatabase.open(path);
    const opened = await first.transaction(() => openSqliteMetadata(path));
    expect(await opened.keys.list()).toEqual([]);
    await opened[Symbol.asyncDispose]();
    first.close();
  });

  it('is durable, refers to nothing that is not there, and locks for a write before it reads', async () => {
    const path = join(directory, 'metadata.sqlite');
    const database = await SqliteDatabase.open(path);
    const pragma = (name: string) => database.get(`PRAGMA ${name}`)?.[name];
    // 2 is FULL: what was committed is there after the power failed.
    expect([pragma('journal_mode'), pragma('synchronous'), pragma('foreign_keys')]).toEqual(['wal', 2, 1]);
    using impatient = new DatabaseSync(path, { timeout: 0 });
    const write = () => impatient.exec("INSERT INTO settings (name, value) VALUES ('a', 'b')");
    expect(() => database.transaction(write)).toThrow('locked');
    database.snapshot(write);
    expect(database.all('SELECT name FROM settings')).toEqual([{ name: 'a' }]);
    database.close();
  });

  it('takes nothing of a transaction that fails', async () => {
    const database = await SqliteDatabase.open(':memory:');
    expect(() =>
      database.transaction(() => {
        database.run("INSERT INTO settings (name, value) VALUES ('a', 'b')");
        throw new Error('no');
      }),
    ).toThrow('no');
    expect(database.all('SELECT * FROM settings')).toEqual([]);
    expect(database.snapshot(() => database.all('SELECT * FROM settings'))).toEqual([]);
    database.close();
  });

  it('is opened for the first time by several processes at once, which share the jobs', async () => {
    const source = `
      const { openSqliteMetadata } = await import(${JSON.stringify(new URL('./sqlite-store.ts', import.meta.url).href)});
      const store = await openSqliteMetadata(${JSON.stringify(join(directory, 'metadata.sqlite'))});
      for (let i = 0; i < 20; i++) await store.jobs.enqueue('work', 'job-' + i, i);
      const done = [];
      for (let job; (job = await store.jobs.claim(['work'], 60000)) !== undefined; done.push(job.payload)) {
        if (!(await store.jobs.finish(job))) throw new Error('a claim was lost');
      }
      await store[Symbol.asyncDispose]();
      console.log(JSON.stringify(done));`;
    const args = ['--conditions=@decant/source', '--input-type=module', '--eval', source];
    const results = await Promise.all([1, 2, 3].map(() => run(process.execPath, args, { timeoutMs: 110_000 })));
    const done = results.flatMap(({ stdout }) => JSON.parse(stdout.toString()) as number[]);
    // A process that comes late adds again what is done already.
    expect(new Set(done).size).toBe(20);
  });
});
