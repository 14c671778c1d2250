import { DecantError } from '@decant/core';

/** An amount that untrusted input may use up and not exceed. */
export class Budget {
  readonly #limit: number;
  readonly #what: string;
  #left: number;

  constructor(limit: number, what: string) {
    this.#limit = limit;
    this.#left = limit;
    this.#what = what;
  }

  /** @throws LIMIT_EXCEEDED */
  spend(amount: number): void {
    this.#left -= amount;
    if (this.#left >= 0) return;
    throw new DecantError('LIMIT_EXCEEDED', `The filesystem image has over ${this.#limit} ${this.#what}.`, {
      details: { limit: this.#limit, what: this.#what },
    });
  }
}
