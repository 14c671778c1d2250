import { setImmediate } from 'node:timers/promises';

/**
 * Lets other work of the event loop run, and notices an abort, once per `every` steps of a long synchronous loop.
 * @throws the signal's reason
 */
export class Cooperation {
  readonly #every: number;
  readonly #signal: AbortSignal | undefined;
  #left: number;

  constructor(every: number, signal: AbortSignal | undefined) {
    this.#every = every;
    this.#left = every;
    this.#signal = signal;
  }

  async step(weight = 1): Promise<void> {
    this.#left -= weight;
    if (this.#left > 0) return;
    this.#left = this.#every;
    await setImmediate();
    this.#signal?.throwIfAborted();
  }
}
