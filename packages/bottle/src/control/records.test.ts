import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { identityOf } from '../stack/owner.ts';
import { findRecord, listRecords, openRecord, writeRecord, type BottleRecord } from './records.ts';

let records: string;
beforeEach(async () => {
  records = join(await mkdtemp(join(tmpdir(), 'records-')), 'below');
});
afterEach(() => rm(join(records, '..'), { recursive: true, force: true }));

const record = (slug: string, second: number): BottleRecord => ({
  slug,
  name: slug,
  image: 'app',
  command: ['sh'],
  startedAt: new Date(1_700_000_000_000 + second * 1000).toISOString(),
  auditFile: '/nowhere',
});

it('finds the newest of a slug, and how it ended', async () => {
  expect(await listRecords(records)).toEqual([]);
  await expect(findRecord(records, 'a')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  await openRecord(records, record('a', 2));
  const last = await openRecord(records, record('a', 3));
  await openRecord(records, record('a', 1));
  await openRecord(records, record('a-b', 9));
  const ended = { at: new Date(0).toISOString(), exitCode: 3, reason: 'Its agent has ended.' };
  await writeRecord(last, { ...record('a', 3), ended });
  expect(await findRecord(records, 'a')).toEqual({ directory: last, record: { ...record('a', 3), ended } });
  await writeFile(join(last, 'record.json'), '{"slug":"../x"}');
  expect((await listRecords(records)).map(({ slug, startedAt }) => [slug, startedAt.slice(17, 19)])).toEqual([
    ['a', '21'],
    ['a', '22'],
    ['a-b', '29'],
  ]);
});

it('keeps that of a bottle that runs, however many come after it', async () => {
  const supervisor = (await identityOf(process.pid))!;
  const running = await openRecord(records, { ...record('running', 0), supervisor });
  await openRecord(records, { ...record('killed', 1), supervisor: { ...supervisor, start: '1' } });
  const over = await openRecord(records, { ...record('over', 2), supervisor });
  const ended = { at: new Date(0).toISOString(), exitCode: 0, reason: 'Its agent has ended.' };
  await writeRecord(over, { ...record('over', 2), supervisor, ended });
  for (let i = 3; i < 103; i++) await openRecord(records, record('many', i));
  const names = (await readdir(records)).sort();
  expect(names).toHaveLength(100);
  expect(names.filter((name) => !name.startsWith('many.'))).toEqual([basename(running)]);
});

it('keeps a hundred', async () => {
  for (let i = 0; i < 103; i++) await openRecord(records, record('many', i));
  const names = await readdir(records);
  for (const name of names) expect((await stat(join(records, name))).mode & 0o777).toBe(0o700);
  expect(names).toHaveLength(100);
  expect(names.sort()[0]).toBe('many.1700000003000');
});
