/** Milliseconds that synchronous file system calls may keep the event loop from anything else. */
const LONGEST_MS = 15;

/**
 * A turn of the event loop. Looking at many small files one after the other is several times faster with synchronous
 * calls than through the thread pool; with this, timers and sockets still get their turn in between.
 */
export class Turn {
  #began = performance.now();

  get isOver(): boolean {
    return performance.now() - this.#began > LONGEST_MS;
  }

  /** Ends the turn and begins the next. */
  async next(signal: AbortSignal | undefined): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    signal?.throwIfAborted();
    this.#began = performance.now();
  }
}
