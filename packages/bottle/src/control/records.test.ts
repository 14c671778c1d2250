import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

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

it('keeps a hundred', async () => {
  for (let i = 0; i < 103; i++) await openRecord(records, record('many', i));
  const names = await readdir(records);
  expect(names).toHaveLength(100);
  expect(names.sort()[0]).toBe('many.1700000003000');
});
