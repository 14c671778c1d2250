import { DecantError, formatDuration } from '@decant/core';

/** A clock that tests can move. */
export interface BuildClock {
  /** Milliseconds that only grow. */
  readonly now: () => number;
  /** Milliseconds between two looks. */
  readonly tickMs: number;
}

export const SYSTEM_CLOCK: BuildClock = { now: () => performance.now(), tickMs: 500 };

/** Ends a build that runs for too long, or that writes nothing for too long. */
export class Watchdog implements Disposable {
  readonly #clock: BuildClock;
  readonly #timer: NodeJS.Timeout;
  #heardAt: number;

  constructor(
    clock: BuildClock,
    limits: { readonly wallMs: number; readonly silenceMs: number },
    end: (error: DecantError) => void,
  ) {
    const startedAt = clock.now();
    this.#clock = clock;
    this.#heardAt = startedAt;
    this.#timer = setInterval(() => {
      const now = clock.now();
      if (now - startedAt > limits.wallMs) {
        end(
          new DecantError('BUILD_WALL_TIME', `The build did not end within ${formatDuration(limits.wallMs)}.`, {
            details: { limitMs: limits.wallMs },
          }),
        );
      } else if (now - this.#heardAt > limits.silenceMs) {
        end(
          new DecantError('BUILD_SILENT', `The build wrote nothing for ${formatDuration(limits.silenceMs)}.`, {
            hint: 'Let long steps say how far they are.',
            details: { limitMs: limits.silenceMs },
          }),
        );
      }
    }, clock.tickMs);
  }

  /** There was output. */
  heard(): void {
    this.#heardAt = this.#clock.now();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
