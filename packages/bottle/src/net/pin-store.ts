import type { Pins } from './policy.ts';

/** Most names that are kept; the one that was pinned longest ago goes first. */
const MAX_NAMES = 4096;
/** Most addresses of the past that are kept for a name. */
const MAX_PAST = 256;

interface Pinned {
  readonly addresses: readonly string[];
  readonly until: number;
  /** Every address the name had in this bottle: programs keep what they were told for longer than its TTL. */
  readonly past: Set<string>;
}

/** What names resolved to in one bottle. Bounded, whatever is asked. */
export class PinStore implements Pins {
  readonly #now: () => number;
  readonly #pinned = new Map<string, Pinned>();
  readonly #names = new Map<string, Set<string>>();

  constructor(now: () => number) {
    this.#now = now;
  }

  addressesOf(name: string): readonly string[] | undefined {
    const pinned = this.#pinned.get(name);
    return pinned === undefined || pinned.until <= this.#now() ? undefined : pinned.addresses;
  }

  namesOf(address: string): readonly string[] {
    return [...(this.#names.get(address) ?? [])];
  }

  set(name: string, addresses: readonly string[], lifetimeMs: number): void {
    const past = this.#pinned.get(name)?.past ?? new Set<string>();
    this.#pinned.delete(name);
    this.#pinned.set(name, { addresses: [...addresses], until: this.#now() + lifetimeMs, past });
    for (const address of addresses) {
      past.add(address);
      const names = this.#names.get(address) ?? new Set<string>();
      this.#names.set(address, names.add(name));
    }
    for (const old of past) {
      if (past.size <= MAX_PAST) break;
      past.delete(old);
      this.#unlink(old, name);
    }
    if (this.#pinned.size > MAX_NAMES) this.#forgetOldest();
  }

  #forgetOldest(): void {
    for (const [name, { past }] of this.#pinned) {
      this.#pinned.delete(name);
      for (const address of past) this.#unlink(address, name);
      return;
    }
  }

  #unlink(address: string, name: string): void {
    const names = this.#names.get(address);
    names?.delete(name);
    if (names?.size === 0) this.#names.delete(address);
  }
}
