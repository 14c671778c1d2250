import { entropyBits, partBelow } from './name-entropy.ts';
import { refused, type Refusal } from './refusal.ts';

export interface NameBudgetLimits {
  /** Different names below one wildcard in `windowMs`; default 128. */
  readonly namesBelow?: number | undefined;
  /** Bits of information in them together; default 6,144, which is 768 bytes. */
  readonly bitsBelow?: number | undefined;
  /** Names in all that are looked up in `windowMs`; default 2,048. */
  readonly lookups?: number | undefined;
  /** Milliseconds; default one hour. */
  readonly windowMs?: number | undefined;
}

/**
 * Bounds what a bottle can say by the names it has looked up. Every lookup below a wildcard tells the owner of that domain a name of the
 * agent's choice, so different names and the information in them are counted; asking for one again costs nothing.
 */
export class NameBudget {
  readonly #limits: Required<{ [K in keyof NameBudgetLimits]: number }>;
  readonly #now: () => number;
  readonly #below = new Map<string, { readonly names: Set<string>; bits: number }>();
  #lookups = 0;
  #windowEnds: number;

  constructor(limits: NameBudgetLimits = {}, now: () => number = Date.now) {
    this.#limits = {
      namesBelow: limits.namesBelow ?? 128,
      bitsBelow: limits.bitsBelow ?? 6144,
      lookups: limits.lookups ?? 2048,
      windowMs: limits.windowMs ?? 3_600_000,
    };
    this.#now = now;
    this.#windowEnds = now() + this.#limits.windowMs;
  }

  /** Counts a lookup that is about to be sent; a refusal when it may not be. Takes memory for `lookups` names at most. */
  admit(name: string, wildcard: string | undefined): Refusal | undefined {
    if (this.#now() >= this.#windowEnds) {
      this.#below.clear();
      this.#lookups = 0;
      this.#windowEnds = this.#now() + this.#limits.windowMs;
    }
    if (this.#lookups >= this.#limits.lookups) {
      return refused(
        'dns-budget',
        `The bottle has looked up ${this.#limits.lookups} names, which is as many as it may.`,
      );
    }
    if (wildcard !== undefined) {
      const used = this.#below.get(wildcard) ?? { names: new Set<string>(), bits: 0 };
      this.#below.set(wildcard, used);
      if (!used.names.has(name)) {
        const bits = entropyBits(partBelow(name, wildcard));
        if (used.names.size >= this.#limits.namesBelow || used.bits + bits > this.#limits.bitsBelow) {
          return refused('dns-budget', `The bottle has asked for as many names below ${wildcard} as it may.`);
        }
        used.names.add(name);
        used.bits += bits;
      }
    }
    this.#lookups++;
    return undefined;
  }
}
