import type { BuildEvent } from './driver.ts';

/** More lines than the 64 KiB have that a stream gives at a time. */
const MOST_LINES = 100_000;

/**
 * Hands events from a callback to a consumer that pulls. It holds a bounded number: when the consumer is slower
 * than the engine, log lines are dropped and counted, and a warning says how many; other events always pass.
 */
export class EventQueue {
  readonly #limit: number;
  #events: BuildEvent[] = [];
  #dropped = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(limit = MOST_LINES) {
    this.#limit = limit;
  }

  push(event: BuildEvent): void {
    if (event.type === 'log' && this.#events.length >= this.#limit) {
      this.#dropped++;
      return;
    }
    this.#events.push(event);
    this.#wake?.();
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** Everything pushed until {@link end}; for one consumer. */
  async *drain(): AsyncGenerator<BuildEvent, void> {
    for (;;) {
      const events = this.#events;
      const dropped = this.#dropped;
      this.#events = [];
      this.#dropped = 0;
      yield* events;
      if (dropped > 0) {
        const message = `${dropped} lines of output were left out, because they came faster than they were read.`;
        yield { type: 'warning', stage: 'build', message };
      }
      if (this.#events.length > 0) continue;
      if (this.#ended) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
