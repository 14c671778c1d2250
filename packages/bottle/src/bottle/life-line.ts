import { DecantError } from '@decant/core';

import type { BottleEnd, EndReason } from './bottle.ts';

/** Longest delay of a timer of Node. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * What ends a bottle, whoever says so first: its wall time, its fence, its machine, the caller's signal or a stop. During
 * the launch its signal aborts what is under way.
 */
export class LifeLine {
  readonly #controller = new AbortController();
  readonly #ended = Promise.withResolvers<BottleEnd>();
  readonly #timer: NodeJS.Timeout;
  readonly #callerSignal: AbortSignal | undefined;
  readonly #slug: string;
  readonly deadlineMs: number;
  #end: BottleEnd | undefined;

  constructor(options: {
    readonly slug: string;
    readonly wallTimeMs: number;
    readonly signal: AbortSignal | undefined;
  }) {
    const { slug, wallTimeMs, signal } = options;
    this.#slug = slug;
    this.#callerSignal = signal;
    this.deadlineMs = Date.now() + wallTimeMs;
    const expire = () => this.end('wall-time', 'Its wall time is over.');
    this.#timer = setTimeout(expire, Math.min(wallTimeMs, LONGEST_TIMER_MS));
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (signal?.aborted === true) this.#onAbort();
  }

  /** Aborts when the end begins; its reason is the caller's, or says why. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Why the end begins. */
  get begun(): Promise<BottleEnd> {
    return this.#ended.promise;
  }

  get reason(): BottleEnd | undefined {
    return this.#end;
  }

  /**
   * What is wrong when a step of the launch ended with this error: when the life had ended before, the step only says how that
   * reached it.
   */
  failureOf(error: unknown): unknown {
    const end = this.#end;
    if (this.#callerSignal?.aborted === true) return this.#callerSignal.reason;
    if (end === undefined || end.reason === 'failed') return error;
    if (end.reason === 'wall-time') {
      return new DecantError('TIMEOUT', `The bottle ${this.#slug} was not ready when its wall time was over.`, {
        retryable: false,
        cause: error,
      });
    }
    if (error === this.signal.reason) return error;
    return new DecantError('BOTTLE_ENDED', `The bottle ${this.#slug} has ended. ${end.message}`, { cause: error });
  }

  readonly #onAbort = () => this.end('aborted', 'It was cancelled.');

  /** The first reason counts. */
  end(reason: EndReason, message: string): void {
    if (this.#end !== undefined) return;
    this.#end = { reason, message };
    clearTimeout(this.#timer);
    this.#callerSignal?.removeEventListener('abort', this.#onAbort);
    const why = reason === 'aborted' ? this.#callerSignal?.reason : undefined;
    this.#controller.abort(why ?? new DecantError('BOTTLE_ENDED', `The bottle ${this.#slug} has ended. ${message}`));
    this.#ended.resolve(this.#end);
  }
}
