import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';
import { z } from 'zod';

import { livenessOf, processIdentitySchema } from '../stack/owner.ts';

/*
 * What is kept of a bottle when it is gone, a folder for each below the folder of records, mode 0700:
 *
 *     <slug>.<when it started, milliseconds since 1970, 13 digits>/
 *       agent.log, agent.log.1   what the agent wrote (see AgentLog)
 *       supervisor.log           what a detached supervisor said
 *       record.json              what it was; after its end also how it ended
 */
const recordSchema = z.strictObject({
  slug: z.string(),
  name: z.string(),
  image: z.string(),
  command: z.array(z.string()),
  startedAt: z.iso.datetime(),
  /** The process that runs it: the record of a bottle that runs stays. */
  supervisor: processIdentitySchema.optional(),
  /** Left out while it runs, and when its supervisor was killed. */
  ended: z
    .strictObject({
      at: z.iso.datetime(),
      /** Of the agent; null when the bottle ended under it. */
      exitCode: z.int().nullable(),
      reason: z.string(),
    })
    .optional(),
  /** Its audit, which stays. */
  auditFile: z.string(),
});
export type BottleRecord = z.infer<typeof recordSchema>;

/** Records that are kept; the oldest go when a bottle starts, but not those of bottles that run. */
const MOST_RECORDS = 100;
const MAX_RECORD_BYTES = 4 * 1024 * 1024;
const NAME = /^([a-z0-9-]+)\.(\d{13})$/;

/** Makes the folder for the record of a bottle that starts now, and lets the oldest go. */
export async function openRecord(records: string, record: Omit<BottleRecord, 'ended'>): Promise<string> {
  await mkdir(records, { recursive: true, mode: 0o700 });
  const started = Date.parse(record.startedAt).toString().padStart(13, '0');
  const directory = join(records, `${record.slug}.${started}`);
  await mkdir(directory, { mode: 0o700 });
  await writeRecord(directory, record);
  const names = await namesIn(records);
  let tooMany = names.length - MOST_RECORDS;
  for (const { name } of names) {
    if (tooMany <= 0) break;
    if (await isRunning(join(records, name))) continue;
    await rm(join(records, name), { recursive: true, force: true });
    tooMany--;
  }
  return directory;
}

async function isRunning(directory: string): Promise<boolean> {
  const { ended, supervisor } = (await readRecord(directory)) ?? {};
  return ended === undefined && supervisor !== undefined && (await livenessOf(supervisor)) !== 'gone';
}

/** Replaces what a record says, in one step. */
export async function writeRecord(directory: string, record: BottleRecord): Promise<void> {
  const draft = join(directory, 'record.json.new');
  await writeFile(draft, `${JSON.stringify(record)}\n`, { mode: 0o600 });
  await rename(draft, join(directory, 'record.json'));
}

/** The newest record of a slug. @throws NOT_FOUND */
export async function findRecord(
  records: string,
  slug: string,
): Promise<{ readonly directory: string; readonly record: BottleRecord }> {
  const found = (await namesIn(records)).findLast((entry) => entry.slug === slug);
  const directory = found === undefined ? undefined : join(records, found.name);
  const record = directory === undefined ? undefined : await readRecord(directory);
  if (directory === undefined || record === undefined) {
    throw new DecantError('NOT_FOUND', `There is no bottle ${quote(slug)}, and none is remembered.`, {
      hint: 'decant bottle ls --all shows those that run and those that have ended.',
    });
  }
  return { directory, record };
}

/** All records, oldest first; what cannot be read is left out. */
export async function listRecords(records: string): Promise<readonly BottleRecord[]> {
  const found = await Promise.all((await namesIn(records)).map(({ name }) => readRecord(join(records, name))));
  return found.filter((record) => record !== undefined);
}

async function namesIn(records: string): Promise<{ readonly name: string; readonly slug: string }[]> {
  const names = await readdir(records).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  return names
    .flatMap((name) => {
      const [, slug, started] = NAME.exec(name) ?? [];
      return slug === undefined || started === undefined ? [] : [{ name, slug, started }];
    })
    .sort((a, b) => (a.started < b.started ? -1 : a.started > b.started ? 1 : 0));
}

async function readRecord(directory: string): Promise<BottleRecord | undefined> {
  try {
    const text = await readFile(join(directory, 'record.json'), 'utf8');
    return text.length > MAX_RECORD_BYTES ? undefined : recordSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
