/** A clock for tests: it stands still until it is moved. */
export interface FakeClock {
  /** Milliseconds since 1970, in place of `Date.now`. */
  readonly now: () => number;
  /** Moves it forward by a non-negative number of milliseconds. */
  advance(milliseconds: number): void;
}

export function fakeClock(startMs: number = Date.UTC(2026, 0, 1)): FakeClock {
  let time = startMs;
  return {
    now: () => time,
    advance(milliseconds) {
      if (!(milliseconds >= 0)) throw new RangeError('a clock moves forward only');
      time += milliseconds;
    },
  };
}
