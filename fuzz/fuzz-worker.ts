import { parentPort, workerData } from 'node:worker_threads';

import { runCase } from './fuzz-case.ts';
import { Random } from './random.ts';
import { findTarget } from './targets/index.ts';

/** What a worker is started with. */
export interface FuzzWork {
  readonly target: string;
  readonly seed: number;
  readonly milliseconds: number;
  /** Cases that are run however long they take. */
  readonly leastCases: number;
  /** One word: the seed of the case under way, so that one that hangs or kills the thread is known. */
  readonly current: Int32Array;
}

export interface FuzzCounts {
  cases: number;
  accepted: number;
  refused: number;
}

export type FuzzMessage =
  | { readonly type: 'alive'; readonly counts: FuzzCounts }
  | { readonly type: 'failed'; readonly seed: number; readonly problem: string; readonly counts: FuzzCounts }
  | { readonly type: 'done'; readonly counts: FuzzCounts };

/** Milliseconds between two signs of life. */
const SIGN_MS = 500;

function send(message: FuzzMessage): void {
  parentPort?.postMessage(message, []);
}

async function work({ target: name, seed, milliseconds, leastCases, current }: FuzzWork): Promise<FuzzMessage> {
  const target = findTarget(name);
  const seeds = new Random(seed);
  const counts = { cases: 0, accepted: 0, refused: 0 };
  const end = performance.now() + milliseconds;
  let nextSign = performance.now() + SIGN_MS;
  while (performance.now() < end || counts.cases < leastCases) {
    const caseSeed = seeds.u32();
    Atomics.store(current, 0, caseSeed | 0);
    const outcome = await runCase(target, caseSeed);
    counts.cases++;
    if (outcome.type === 'failed') return { ...outcome, seed: caseSeed, counts };
    counts[outcome.type]++;
    if (performance.now() < nextSign) continue;
    nextSign = performance.now() + SIGN_MS;
    send({ type: 'alive', counts });
  }
  return { type: 'done', counts };
}

send(await work(workerData as FuzzWork));
