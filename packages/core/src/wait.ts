import { isDecantError } from './errors.ts';

/** Resolves after `milliseconds`; rejects with the signal's reason when it aborts first. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/**
 * Settles as `work` does, or rejects with the signal's reason as soon as it aborts; the work itself goes on, and what
 * becomes of it then is dropped. There is one listener for each wait: racing one long-lived promise would keep every
 * result until the end.
 */
export function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

export interface RetryOptions {
  /** Calls in all, at least 1; default 4. */
  readonly attempts?: number;
  /** Delay before the second call, in milliseconds; doubles each time, with up to half of it random; default 200. */
  readonly firstDelayMs?: number;
  /** Longest delay, in milliseconds; default 5,000. */
  readonly maxDelayMs?: number;
  /** Whether this failure is worth another call; default: a DecantError's `retryable`. */
  readonly when?: (error: unknown) => boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Calls `action` until it succeeds, fails for good or runs out of attempts; the last failure is thrown as it came. */
export async function retry<T>(action: (attempt: number) => Promise<T>, options: RetryOptions = {}): Promise<T> {
  const { attempts = 4, firstDelayMs = 200, maxDelayMs = 5000, signal } = options;
  const when = options.when ?? ((error: unknown) => isDecantError(error) && error.retryable);
  for (let attempt = 1; ; attempt++) {
    signal?.throwIfAborted();
    try {
      return await action(attempt);
    } catch (error) {
      signal?.throwIfAborted();
      if (attempt >= attempts || !when(error)) throw error;
      const delay = Math.min(maxDelayMs, firstDelayMs * 2 ** (attempt - 1));
      await sleep(delay * (1 + Math.random() / 2), signal);
    }
  }
}

/** Lets at most `limit` holders in at a time, first come, first served. */
export class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    if (!Number.isInteger(limit) || limit < 1) throw new RangeError('a semaphore needs a limit of at least 1');
    this.#free = limit;
  }

  async run<T>(action: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#enter(signal);
    try {
      return await action();
    } finally {
      this.#leave();
    }
  }

  #enter(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const enter = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      const onAbort = () => {
        const index = this.#waiting.indexOf(enter);
        if (index >= 0) this.#waiting.splice(index, 1);
        reject(signal?.reason);
      };
      this.#waiting.push(enter);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
