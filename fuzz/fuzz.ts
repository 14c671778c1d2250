import { Worker } from 'node:worker_threads';

import type { FuzzCounts, FuzzMessage, FuzzWork } from './fuzz-worker.ts';
import type { FuzzTarget } from './target.ts';

export interface FuzzResult extends FuzzCounts {
  /** The first input that broke a promise, by the seed of its case. */
  readonly failure?: { readonly seed: number; readonly problem: string };
}

/** A case that takes longer, in milliseconds, is taken for one that never ends. */
const HANG_MS = 120_000;
/** Most megabytes of JavaScript objects of the thread; buffers are measured case by case. */
const MAX_HEAP_MB = 512;

/**
 * Tries inputs of one target for a time, but `leastCases` at least, in a thread of its own, until one breaks a promise. The same seed tries the same
 * inputs in the same order. A case that hangs or ends the thread is found as well.
 */
export async function fuzz(
  target: FuzzTarget,
  {
    leastCases = 0,
    ...options
  }: { readonly seed: number; readonly milliseconds: number; readonly leastCases?: number },
): Promise<FuzzResult> {
  const current = new Int32Array(new SharedArrayBuffer(4));
  const workerData: FuzzWork = { target: target.name, current, leastCases, ...options };
  const worker = new Worker(new URL('fuzz-worker.ts', import.meta.url), {
    workerData,
    execArgv: ['--conditions=@decant/source', '--no-warnings'],
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  });
  let counts: FuzzCounts = { cases: 0, accepted: 0, refused: 0 };
  const broken = (problem: string): FuzzResult => ({
    ...counts,
    failure: { seed: Atomics.load(current, 0) >>> 0, problem },
  });
  try {
    return await new Promise<FuzzResult>((resolve) => {
      let watchdog = setTimeout(() => undefined, 0);
      const watch = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => resolve(broken(`It did not end within ${HANG_MS} ms.`)), HANG_MS);
      };
      watch();
      worker.on('message', (message: FuzzMessage) => {
        ({ counts } = message);
        watch();
        if (message.type === 'done') resolve(counts);
        if (message.type === 'failed') {
          resolve({ ...counts, failure: { seed: message.seed, problem: message.problem } });
        }
        if (message.type !== 'alive') clearTimeout(watchdog);
      });
      worker.on('error', (error) => resolve(broken(`The thread ended: ${String(error)}`)));
      worker.on('exit', (status) => resolve(broken(`The thread ended with status ${status}.`)));
    });
  } finally {
    await worker.terminate();
  }
}
