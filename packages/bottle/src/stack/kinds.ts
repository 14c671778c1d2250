import { readFile, rm } from 'node:fs/promises';
import { basename, dirname, resolve, sep } from 'node:path';

import { DecantError, errnoOf, sleep } from '@decant/core';
import { run } from '@decant/core/node';

import type { ResourceClaim } from '../backends/backend.ts';
import type { LedgerHeader } from './ledger.ts';
import { identityOf, livenessOf, processIdentitySchema } from './owner.ts';

/** Undoes claims of one kind that an ended process left behind; what is gone already is success. */
export type Reaper = (claim: ResourceClaim, header: LedgerHeader) => Promise<void>;

const UNMOUNT_TIMEOUT_MS = 10_000;
const KILLED_WITHIN_MS = 5000;

/** Reapers for what bottles of every backend hold. */
export function commonReapers(directory: string): Readonly<Record<string, Reaper>> {
  return {
    directory: (claim, header) => reapDirectory(directory, claim, header),
    process: (claim) => reapProcess(claim),
    // The sidecar and what it holds.
    fence: (claim) => reapProcess(claim),
    // Things of the owner's own process, gone with it; what they hold besides, their makers claim themselves.
    audit: async () => undefined,
    image: async () => undefined,
    prepared: async () => undefined,
    machine: async () => undefined,
  };
}

/** `directory` {path}: the state folder of the bottle, and nothing else. */
async function reapDirectory(directory: string, claim: ResourceClaim, { slug }: LedgerHeader): Promise<void> {
  const path = resolve(String(claim['path']));
  if (dirname(path) !== resolve(directory) || basename(path) !== slug) {
    throw new DecantError('INTERNAL', `The ledger of ${slug} claims ${path}, which is not its folder.`);
  }
  // Removing through a mount would remove what is mounted.
  for (const mount of await mountsBelow(path)) {
    await run('umount', ['--lazy', '--', mount], { timeoutMs: UNMOUNT_TIMEOUT_MS });
  }
  const left = await mountsBelow(path);
  if (left.length > 0) throw new DecantError('CONFLICT', `${left[0]} is still mounted, so ${path} stays.`);
  await rm(path, { recursive: true, force: true, maxRetries: 3 });
}

/** Mount points at or below a path, the deepest first. */
async function mountsBelow(path: string): Promise<string[]> {
  const text = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  return text
    .split('\n')
    .map((line) => (line.split(' ')[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal: string) => fromOctal(octal)))
    .filter((point) => point === path || point.startsWith(path + sep))
    .toReversed();
}

function fromOctal(digits: string): string {
  return String.fromCharCode(Number.parseInt(digits, 8));
}

/**
 * `process` {pid, start, boot, namespace}: ends it, unless its number belongs to another by now. A claim that never got
 * to know its process was cut off within the start of it: the kernel ends such children with their parent.
 */
async function reapProcess({ pid, start, boot, namespace }: ResourceClaim): Promise<void> {
  const found = processIdentitySchema.safeParse({ pid, start, boot, namespace });
  if (!found.success || (await livenessOf(found.data)) !== 'lives') return;
  try {
    process.kill(found.data.pid, 'SIGKILL');
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error;
  }
  const deadline = performance.now() + KILLED_WITHIN_MS;
  while ((await livenessOf(found.data)) === 'lives') {
    if (performance.now() > deadline) {
      throw new DecantError('TIMEOUT', `Process ${found.data.pid} did not end within ${KILLED_WITHIN_MS} ms.`);
    }
    await sleep(10);
  }
}

/** The facts of a `process` claim, for its note; none when the process has ended already. */
export async function processFacts(pid: number): Promise<Readonly<Record<string, string | number>>> {
  return (await identityOf(pid)) ?? {};
}
