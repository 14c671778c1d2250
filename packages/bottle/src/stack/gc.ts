import { randomBytes } from 'node:crypto';
import { open, readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { DecantError, errnoOf, Semaphore, sleep } from '@decant/core';

import type { Backend, ResourceClaim } from '../backends/backend.ts';
import { isSlug } from '../plan/slug.ts';
import { commonReapers, type Reaper } from './kinds.ts';
import { CLAIM_PREFIX, LEDGER_SUFFIX, ledgerPath, readLedger, type LedgerHeader, type LedgerRecord } from './ledger.ts';
import { identityOf, livenessOf, livenessOfMark, ownerMark } from './owner.ts';

export interface CollectOptions {
  /** The folder of bottles. */
  readonly directory: string;
  /** Undo what bottles of theirs hold. */
  readonly backends: readonly Backend[];
  readonly signal?: AbortSignal | undefined;
}

export interface CollectResult {
  /** Bottles whose owner was gone, and what was undone for each. */
  readonly collected: readonly { readonly slug: string; readonly kinds: readonly string[] }[];
  readonly running: readonly string[];
  /** Something could not be undone; the ledger stays. */
  readonly failed: readonly { readonly slug: string; readonly error: unknown }[];
}

const AT_ONCE = 8;
const FLAG_PREFIX = '.gc-';
const FLAG_WAIT_MS = 30_000;
/** A bottle of another process namespace is taken for gone this long after its wall time has run out. */
const FOREIGN_GRACE_MS = 60 * 60 * 1000;

/**
 * Undoes what bottles left whose owner is gone, killed or crashed, each in reverse order of its ledger. Running bottles
 * are not touched, a second run does nothing, and of two at a time one waits for the other.
 */
export async function collectBottles(options: CollectOptions): Promise<CollectResult> {
  const { directory, signal } = options;
  const collected: { slug: string; kinds: string[] }[] = [];
  const running: string[] = [];
  const failed: { slug: string; error: unknown }[] = [];
  const before = await entriesOf(directory);
  if (before.length === 0) return { collected, running, failed };
  await using flag = await raiseFlag(directory, signal);
  await removeLeftovers(directory, flag.name);
  const reap = reaperOf(directory, options.backends);
  const semaphore = new Semaphore(AT_ONCE);
  await Promise.all(
    (await entriesOf(directory)).map(async (entry) => {
      const slug = entry.slice(0, -LEDGER_SUFFIX.length);
      if (!entry.endsWith(LEDGER_SUFFIX) || !isSlug(slug)) return;
      await semaphore.run(async () => {
        signal?.throwIfAborted();
        try {
          const record = await readLedger(directory, slug);
          if (record === undefined) return;
          if (record === 'empty') {
            await rm(ledgerPath(directory, slug), { force: true });
            return;
          }
          if ((await stateOf(record)) !== 'gone') {
            running.push(slug);
            return;
          }
          collected.push({ slug, kinds: await unwind(directory, record, reap) });
        } catch (error) {
          failed.push({ slug, error });
        }
      });
    }),
  );
  signal?.throwIfAborted();
  const bySlug = (a: { slug: string }, b: { slug: string }) => (a.slug < b.slug ? -1 : 1);
  return { collected: collected.sort(bySlug), running: running.sort(), failed: failed.sort(bySlug) };
}

/** A function that undoes a claim of any kind: of the common ones, or by the backend that the ledger names. */
export function reaperOf(directory: string, backends: readonly Backend[]): Reaper {
  const common = commonReapers(directory);
  return async (claim, header) => {
    const known = Object.hasOwn(common, claim.kind) ? common[claim.kind] : undefined;
    if (known !== undefined) {
      await known(claim, header);
      return;
    }
    const backend = backends.find(({ name }) => name === header.backend);
    if (backend === undefined) {
      throw new DecantError(
        'JAIL_UNAVAILABLE',
        `The backend ${header.backend} of ${header.slug} is not here to undo it.`,
      );
    }
    await backend.reap(claim);
  };
}

/** Every claim is tried; the ledger goes only when all of them are undone. */
async function unwind(directory: string, record: LedgerRecord, reap: Reaper): Promise<string[]> {
  const errors: unknown[] = [];
  const claims: readonly ResourceClaim[] = record.claims.toReversed();
  for (const claim of claims) {
    try {
      await reap(claim, record.header);
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) throw new AggregateError(errors, `several resources of ${record.header.slug} stay`);
  await rm(ledgerPath(directory, record.header.slug), { force: true });
  return claims.map(({ kind }) => kind);
}

async function stateOf({ header, closed }: LedgerRecord): Promise<'running' | 'gone'> {
  if (closed) return 'gone';
  const liveness = await livenessOf(header.owner);
  if (liveness !== 'unknown') return liveness === 'lives' ? 'running' : 'gone';
  return Date.now() > Date.parse(header.endsBy) + FOREIGN_GRACE_MS ? 'gone' : 'running';
}

/** A bottle as its ledger has it. */
export interface BottleListing {
  readonly header: LedgerHeader;
  /** `gone`: its owner was killed; `decant bottle gc` clears up after it. */
  readonly state: 'running' | 'gone';
  /** Where it keeps its control socket, log and the like. */
  readonly stateDirectory: string;
}

/** All bottles that have a ledger, by slug. Ledgers that cannot be read are left out; `gc` reports them. */
export async function listBottles(directory: string): Promise<readonly BottleListing[]> {
  const listings: BottleListing[] = [];
  for (const entry of (await entriesOf(directory)).sort()) {
    const slug = entry.slice(0, -LEDGER_SUFFIX.length);
    if (!entry.endsWith(LEDGER_SUFFIX) || !isSlug(slug)) continue;
    const record = await readLedger(directory, slug).catch(() => undefined);
    if (record === undefined || record === 'empty') continue;
    listings.push({
      header: record.header,
      state: await stateOf(record),
      stateDirectory: join(resolve(directory), slug),
    });
  }
  return listings;
}

async function entriesOf(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/**
 * Only one collector works on a folder at a time, else a slow one could undo what a new bottle of the same slug holds.
 * Each raises a flag of its own name and then looks for others: of two at once at least one sees the other, and steps
 * back. A flag names its process, so that those of killed ones are told apart and removed by anybody.
 */
async function raiseFlag(
  directory: string,
  signal: AbortSignal | undefined,
): Promise<AsyncDisposable & { readonly name: string }> {
  const owner = await identityOf(process.pid);
  if (owner === undefined) throw new DecantError('INTERNAL', 'This process has no identity.');
  const deadline = performance.now() + FLAG_WAIT_MS;
  for (;;) {
    signal?.throwIfAborted();
    const name = `${FLAG_PREFIX}${ownerMark(owner)}.${randomBytes(8).toString('hex')}`;
    const path = join(directory, name);
    await (await open(path, 'wx', 0o600)).close();
    const lower = () => rm(path, { force: true });
    if (!(await othersCollect(directory, name))) return { name, [Symbol.asyncDispose]: lower };
    await lower();
    if (performance.now() > deadline) {
      throw new DecantError('TIMEOUT', `Another collection of ${directory} did not end within ${FLAG_WAIT_MS} ms.`);
    }
    await sleep(20 + Math.random() * 60, signal);
  }
}

async function othersCollect(directory: string, own: string): Promise<boolean> {
  for (const entry of await entriesOf(directory)) {
    if (entry === own || !entry.startsWith(FLAG_PREFIX)) continue;
    const liveness = await livenessOfMark(markOf(entry, FLAG_PREFIX));
    if (liveness === 'lives' || (liveness === 'unknown' && (await isFresh(join(directory, entry))))) return true;
  }
  return false;
}

async function removeLeftovers(directory: string, ownFlag: string): Promise<void> {
  for (const entry of await entriesOf(directory)) {
    const prefix = [FLAG_PREFIX, CLAIM_PREFIX].find((text) => entry.startsWith(text));
    if (prefix === undefined || entry === ownFlag) continue;
    const path = join(directory, entry);
    const liveness = await livenessOfMark(markOf(entry, prefix));
    if (liveness === 'gone' || (liveness === 'unknown' && !(await isFresh(path)))) await rm(path, { force: true });
  }
}

function markOf(entry: string, prefix: string): string {
  return entry.slice(prefix.length).split('.')[0] ?? '';
}

/** Files of other process namespaces are judged by their age: they stand for milliseconds. */
async function isFresh(path: string): Promise<boolean> {
  const handle = await open(path, 'r').catch(() => undefined);
  if (handle === undefined) return false;
  try {
    return Date.now() - (await handle.stat()).mtimeMs < FOREIGN_GRACE_MS;
  } finally {
    await handle.close();
  }
}
