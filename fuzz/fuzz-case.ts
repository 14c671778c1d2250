import { isDecantError } from '../packages/core/src/index.ts';
import { mutate } from './mutate.ts';
import { Random } from './random.ts';
import type { FuzzTarget } from './target.ts';

/** What became of one input. */
export type Outcome =
  /** Accepted, and every promise held. */
  | { readonly type: 'accepted' }
  | { readonly type: 'refused' }
  /** A finding: what was thrown, or which bound was passed. */
  | { readonly type: 'failed'; readonly problem: string };

/** The input of a case: valid bytes, changed in a few places, mostly with their checksums made to fit again. */
export function inputOf(target: FuzzTarget, seed: number): Uint8Array {
  const random = new Random(seed);
  const valid = target.generate(random);
  // Now and then as it is: everything valid must be accepted.
  if (random.chance(0.01)) return valid;
  const changed = mutate(valid, random, () => target.generate(random));
  if (random.chance(0.8)) target.repair?.(changed, random);
  return changed;
}

/** Runs one case; never throws. */
export async function runCase(target: FuzzTarget, seed: number): Promise<Outcome> {
  const input = inputOf(target, seed);
  const memoryBefore = heldBytes();
  const started = process.threadCpuUsage();
  try {
    await target.check(input);
    return bounded(target, started, memoryBefore) ?? { type: 'accepted' };
  } catch (error) {
    if (isDecantError(error) && target.refusals.includes(error.code)) {
      return bounded(target, started, memoryBefore) ?? { type: 'refused' };
    }
    return { type: 'failed', problem: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}

/** Bytes of JavaScript objects and of buffers; what was freed in between only makes it smaller. */
function heldBytes(): number {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

function bounded(target: FuzzTarget, started: NodeJS.CpuUsage, memoryBefore: number): Outcome | undefined {
  // Of the processor: what the machine does besides is not the target's.
  const { user, system } = process.threadCpuUsage(started);
  const elapsedMs = (user + system) / 1000;
  if (elapsedMs > target.maxMs) {
    return { type: 'failed', problem: `It took ${Math.round(elapsedMs)} ms; ${target.maxMs} are allowed.` };
  }
  const grown = heldBytes() - memoryBefore;
  if (grown > target.maxMemoryBytes) {
    return { type: 'failed', problem: `It took ${grown} bytes of memory; ${target.maxMemoryBytes} are allowed.` };
  }
  return undefined;
}
