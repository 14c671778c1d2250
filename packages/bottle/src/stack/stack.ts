import { DecantError } from '@decant/core';

import type { ResourceClaim, ResourceStack } from '../backends/backend.ts';
import type { FaultHook } from './fault-points.ts';
import { claimLedger, type Ledger, type LedgerHeader, type LedgerOptions } from './ledger.ts';

export interface StackOptions extends LedgerOptions {
  /**
   * Undoes a claim whatever is there of it, as after a crash. Called when an acquisition fails half-way and when a
   * release fails; what it undoes counts as released.
   */
  readonly reap: (claim: ResourceClaim, header: LedgerHeader) => Promise<void>;
  readonly faultHook?: FaultHook | undefined;
}

/** What a bottle holds, in the order it was acquired. */
export interface BottleStack extends ResourceStack, AsyncDisposable {
  readonly header: LedgerHeader;
  /**
   * Lets everything go in reverse order, to the end whatever fails, and removes the ledger last. When something could
   * not be undone, the ledger stays and `gc` tries again. Calling it again gives the same result.
   * @throws the error of the one step that failed, or an AggregateError of several.
   */
  close(): Promise<void>;
}

/** Adds facts to a claim. */
type Note = (facts: Readonly<Record<string, string | number>>) => Promise<void>;

interface Held {
  readonly number: number;
  readonly claim: ResourceClaim;
  /** Undefined while the acquisition has not ended. */
  release: (() => Promise<void>) | undefined;
}

/** Claims a slug for the name and opens the ledger. @throws NAME_INVALID, CONFLICT */
export async function openStack(options: StackOptions): Promise<BottleStack> {
  const ledger = await claimLedger(options);
  return new LedgerStack(ledger, options);
}

class LedgerStack implements BottleStack {
  readonly #ledger: Ledger;
  readonly #reap: StackOptions['reap'];
  readonly #hook: FaultHook | undefined;
  readonly #held: Held[] = [];
  readonly #pending = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(ledger: Ledger, { reap, faultHook }: StackOptions) {
    this.#ledger = ledger;
    this.#reap = reap;
    this.#hook = faultHook;
  }

  get header(): LedgerHeader {
    return this.#ledger.header;
  }

  enter<T>(
    claim: ResourceClaim,
    acquire: (note: Note) => Promise<T>,
    release: (value: T) => Promise<void>,
  ): Promise<T> {
    return this.#enter(claim, acquire, release, true);
  }

  hold<T>(claim: ResourceClaim, acquire: (note: Note) => Promise<T>, release: (value: T) => Promise<void>): Promise<T> {
    return this.#enter(claim, acquire, release, false);
  }

  async #enter<T>(
    claim: ResourceClaim,
    acquire: (note: Note) => Promise<T>,
    release: (value: T) => Promise<void>,
    durable: boolean,
  ): Promise<T> {
    if (this.#closing !== undefined) throw new DecantError('BOTTLE_ENDED', 'The bottle is being taken down.');
    const work = this.#acquire(claim, acquire, release, durable);
    this.#pending.add(work);
    try {
      return await work;
    } finally {
      this.#pending.delete(work);
    }
  }

  async #acquire<T>(
    claim: ResourceClaim,
    acquire: (note: Note) => Promise<T>,
    release: (value: T) => Promise<void>,
    durable: boolean,
  ): Promise<T> {
    await this.#hook?.(`claim:${claim.kind}`);
    const number = await this.#ledger.claim(claim, durable);
    const held: Held = { number, claim, release: undefined };
    this.#held.push(held);
    // Claims that wait for the disk together come back in any order.
    this.#held.sort((a, b) => a.number - b.number);
    try {
      await this.#hook?.(`acquire:${claim.kind}`);
      const value = await acquire((facts) => this.#ledger.note(number, facts));
      held.release = () => release(value);
      await this.#hook?.(`acquired:${claim.kind}`);
      return value;
    } catch (error) {
      const errors = await this.#undo(held);
      if (errors.length === 0) throw error;
      throw new AggregateError([error, ...errors], 'an acquisition failed, and undoing what there was of it', {
        cause: error,
      });
    }
  }

  /** Lets one resource go; by its claim when its own release fails or it was never held. */
  async #undo(held: Held): Promise<unknown[]> {
    const { claim, number, release } = held;
    const index = this.#held.indexOf(held);
    if (index >= 0) this.#held.splice(index, 1);
    const errors: unknown[] = [];
    let isGone = false;
    if (release !== undefined) {
      try {
        await this.#hook?.(`release:${claim.kind}`);
        await release();
        isGone = true;
        await this.#hook?.(`released:${claim.kind}`);
      } catch (error) {
        errors.push(error);
      }
    }
    try {
      if (!isGone) await this.#reap(claim, this.#ledger.header);
      await this.#ledger.released(number);
    } catch (error) {
      errors.push(error);
      this.#isComplete = false;
    }
    return errors;
  }

  /** Whether everything that was let go so far is gone for sure. */
  #isComplete = true;

  close(): Promise<void> {
    this.#closing ??= this.#unwind();
    return this.#closing;
  }

  async #unwind(): Promise<void> {
    await Promise.allSettled(this.#pending);
    const errors: unknown[] = [];
    for (let held = this.#held.at(-1); held !== undefined; held = this.#held.at(-1)) {
      errors.push(...(await this.#undo(held)));
    }
    try {
      await this.#ledger.close(this.#isComplete ? 'remove' : 'keep');
    } catch (error) {
      errors.push(error);
    }
    if (errors.length === 1) throw errors[0];
    if (errors.length > 1) throw new AggregateError(errors, `several steps of taking ${this.header.slug} down failed`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
