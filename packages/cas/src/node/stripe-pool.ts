import { Worker } from 'node:worker_threads';

import { DecantError } from '@decant/core';

import type { WrittenPack } from './pack-writer.ts';
import {
  receivedError,
  type FromStripeWorker,
  type StripeResult,
  type StripeStoring,
  type StripeWorkerData,
  type ToStripeWorker,
} from './stripe-messages.ts';
import { stripeCount } from './stripe-scan.ts';

/** Stripes per worker that may be handed out and not yet taken by the consumer. */
const AHEAD = 2;
/** Small young generations keep what zlib hands out from piling up between two collections. */
const YOUNG_GENERATION_MB = 2;

export interface StripePoolOptions {
  readonly file: string;
  readonly sizeBytes: number;
  readonly workers: number;
  readonly storing?: StripeStoring | undefined;
  /** Told after each stripe, in the order in which they are done. */
  readonly onScanned?: ((result: StripeResult) => void) | undefined;
  /** The module of the worker, when a bundler has moved it; default: beside this module. */
  readonly workerUrl?: URL | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface Member {
  readonly worker: Worker;
  idle: boolean;
  packs: readonly WrittenPack[] | undefined;
}

/**
 * Worker threads that scan the stripes of one file. At most 2 stripes (128 MiB of the file) per worker are handed out
 * before the consumer has taken their results. The first failure of a worker, and its end before its work is done, fail
 * everything; disposing ends all threads, wherever they are.
 */
export class StripePool implements AsyncDisposable {
  readonly #options: StripePoolOptions;
  readonly #stripes: number;
  readonly #members: Member[] = [];
  readonly #results = new Map<number, StripeResult>();
  #handedOut = 0;
  #taken = 0;
  #failure: { readonly error: unknown } | undefined;
  #closing = false;
  #wake: (() => void) | undefined;
  readonly #onAbort = () => this.#fail(this.#options.signal?.reason);

  constructor(options: StripePoolOptions) {
    options.signal?.throwIfAborted();
    this.#options = options;
    this.#stripes = stripeCount(options.sizeBytes);
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
    const count = Math.min(options.workers, this.#stripes);
    for (let number = 0; number < count; number++) this.#members.push(this.#start(number));
    this.#handOut();
  }

  /** The results in image order. @throws what a worker threw, CAS_WORKER_FAILED when one died, the reason of an abort. */
  async *results(): AsyncGenerator<StripeResult, void, undefined> {
    while (this.#taken < this.#stripes) {
      await this.#until(() => this.#results.has(this.#taken));
      const result = this.#results.get(this.#taken)!;
      this.#results.delete(this.#taken);
      yield result;
      this.#taken++;
      this.#handOut();
    }
  }

  /** Ends the workers once all results are taken; returns the packs that they wrote. */
  async finish(): Promise<readonly WrittenPack[]> {
    for (const member of this.#members) this.#post(member, { type: 'finish' });
    await this.#until(() => this.#members.every(({ packs }) => packs !== undefined));
    return this.#members.flatMap(({ packs }) => packs ?? []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
  }

  #start(number: number): Member {
    const { file, sizeBytes, storing } = this.#options;
    const url = this.#options.workerUrl ?? defaultWorkerUrl();
    const workerData: StripeWorkerData = { file, sizeBytes, worker: number, storing };
    const worker = new Worker(url, {
      workerData,
      // Nothing of this process's own flags; sources find other packages' sources by the condition.
      execArgv: url.pathname.endsWith('.ts') ? ['--conditions=@decant/source'] : [],
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
      name: `decant-stripes-${number}`,
    });
    const member: Member = { worker, idle: true, packs: undefined };
    worker.on('message', (message: FromStripeWorker) => this.#receive(member, message));
    worker.on('error', (error) =>
      this.#fail(died(number, error instanceof Error ? error.message : String(error), error)),
    );
    worker.on('exit', (code) => {
      if (member.packs === undefined) this.#fail(died(number, `it ended with status ${code}`, undefined));
    });
    return member;
  }

  #receive(member: Member, message: FromStripeWorker): void {
    if (message.type === 'failed') {
      this.#fail(receivedError(message.error));
      return;
    }
    if (message.type === 'finished') {
      member.packs = message.packs;
    } else {
      member.idle = true;
      this.#results.set(message.result.stripe, message.result);
      this.#options.onScanned?.(message.result);
      this.#handOut();
    }
    this.#wake?.();
  }

  #handOut(): void {
    const limit = Math.min(this.#stripes, this.#taken + AHEAD * this.#options.workers);
    for (const member of this.#members) {
      if (!member.idle || this.#handedOut >= limit) continue;
      member.idle = false;
      this.#post(member, { type: 'scan', stripe: this.#handedOut++ });
    }
  }

  #post(member: Member, message: ToStripeWorker): void {
    // A thread has no origin: that is a rule for windows.
    // oxlint-disable-next-line unicorn/require-post-message-target-origin
    member.worker.postMessage(message);
  }

  #fail(error: unknown): void {
    if (this.#closing) return;
    this.#failure ??= { error };
    this.#wake?.();
  }

  async #until(done: () => boolean): Promise<void> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure.error;
      if (done()) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** Beside this module: as source, or as the file of its own that the build makes of it. */
function defaultWorkerUrl(): URL {
  const here = import.meta.url;
  return new URL(here.endsWith('.ts') ? './stripe-worker.ts' : './stripe-worker.js', here);
}

function died(number: number, how: string, cause: unknown): DecantError {
  return new DecantError('CAS_WORKER_FAILED', `Worker ${number} stopped before its work was done: ${how}.`, { cause });
}
