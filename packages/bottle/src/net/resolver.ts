import { Resolver as DnsResolver } from 'node:dns/promises';

import { errnoOf, Semaphore, untilAborted } from '@decant/core';

import { canonicalAddress } from './address.ts';
import { NameBudget, type NameBudgetLimits } from './name-budget.ts';
import type { Pins } from './policy.ts';
import { PinStore } from './pin-store.ts';
import { refused, type Refusal } from './refusal.ts';

export interface Lookup {
  readonly type: 'addresses';
  /** Canonical, without repetition; empty when the name has none or nobody answered. */
  readonly addresses: readonly string[];
}

/** Looks names up and keeps what it found as the pins of one bottle. */
export interface Resolver extends Pins, AsyncDisposable {
  /**
   * The addresses of a canonical name: its pins while they last, one shared lookup after that. Only a name that a verdict told to resolve may be
   * given, with its `wildcard`. Never rejects but with the signal's reason.
   */
  resolve(
    name: string,
    options?: { readonly wildcard?: string | undefined; readonly signal?: AbortSignal | undefined },
  ): Promise<Lookup | Refusal>;
  /** Queries that were sent upstream, by name: two for each lookup. */
  readonly lookups: number;
}

export interface ResolverOptions {
  /** `ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT`; default: those of the host's resolv.conf. /etc/hosts is not read. */
  readonly servers?: readonly string[] | undefined;
  /** Milliseconds for one name in all; default 5,000. */
  readonly timeoutMs?: number | undefined;
  /** Shortest and longest time for which an answer is kept, whatever its TTL says, milliseconds; defaults 60,000 and 3,600,000. */
  readonly minLifetimeMs?: number | undefined;
  readonly maxLifetimeMs?: number | undefined;
  /** Most names at once; default 16. */
  readonly concurrency?: number | undefined;
  /** Most lookups that wait; more are answered with no address. Default 256. */
  readonly queue?: number | undefined;
  readonly budget?: NameBudgetLimits | undefined;
  /** Clock, milliseconds; for tests. */
  readonly now?: (() => number) | undefined;
}

/** What failed is asked again after this time, milliseconds. */
const FAILURE_LIFETIME_MS = 2000;
/** An answer with more is not a host's. */
const MAX_ADDRESSES = 64;

/** A resolver over the operator's servers or the system's. */
export function createResolver(options: ResolverOptions = {}): Resolver {
  return new PinningResolver(options);
}

class PinningResolver implements Resolver {
  readonly #options: ResolverOptions;
  readonly #pins: PinStore;
  readonly #budget: NameBudget;
  readonly #slots: Semaphore;
  readonly #underWay = new Map<string, Promise<Lookup>>();
  readonly #open = new Set<DnsResolver>();
  #closed = false;
  lookups = 0;

  constructor(options: ResolverOptions) {
    const now = options.now ?? Date.now;
    this.#options = options;
    this.#pins = new PinStore(now);
    this.#budget = new NameBudget(options.budget, now);
    this.#slots = new Semaphore(options.concurrency ?? 16);
    // A wrong server is told at once, not at the first lookup.
    this.#newClient();
  }

  addressesOf(name: string): readonly string[] | undefined {
    return this.#pins.addressesOf(name);
  }

  namesOf(address: string): readonly string[] {
    return this.#pins.namesOf(address);
  }

  async resolve(
    name: string,
    { wildcard, signal }: { readonly wildcard?: string | undefined; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Lookup | Refusal> {
    signal?.throwIfAborted();
    const known = this.#pins.addressesOf(name);
    if (known !== undefined) return { type: 'addresses', addresses: known };
    let lookup = this.#underWay.get(name);
    if (lookup === undefined) {
      if (this.#closed || this.#underWay.size >= (this.#options.queue ?? 256)) {
        return refused('unresolved', `${name} was not looked up: too much is under way.`);
      }
      const over = this.#budget.admit(name, wildcard);
      if (over !== undefined) return over;
      lookup = this.#slots.run(() => this.#lookup(name)).finally(() => this.#underWay.delete(name));
      this.#underWay.set(name, lookup);
    }
    return untilAborted(lookup, signal);
  }

  async #lookup(name: string): Promise<Lookup> {
    const client = this.#newClient();
    this.#open.add(client);
    const bound = setTimeout(() => client.cancel(), this.#options.timeoutMs ?? 5000);
    try {
      this.lookups++;
      const families = await Promise.all([
        client.resolve4(name, { ttl: true }).catch(nothing),
        client.resolve6(name, { ttl: true }).catch(nothing),
      ]);
      return this.#keep(name, families);
    } finally {
      clearTimeout(bound);
      this.#open.delete(client);
    }
  }

  #keep(name: string, families: readonly (Answers | Failure)[]): Lookup {
    const { minLifetimeMs = 60_000, maxLifetimeMs = 3_600_000 } = this.#options;
    const answers = families.flatMap((family) => (family instanceof Failure ? [] : family));
    const addresses = [...new Set(answers.map(({ address }) => canonicalAddress(address) ?? address))];
    const failed = families.some((family) => family instanceof Failure && !family.known);
    if (addresses.length === 0 || addresses.length > MAX_ADDRESSES) {
      this.#pins.set(name, [], failed ? FAILURE_LIFETIME_MS : minLifetimeMs);
      return { type: 'addresses', addresses: [] };
    }
    const ttlMs = Math.min(...answers.map(({ ttl }) => ttl)) * 1000;
    this.#pins.set(name, addresses, Math.min(Math.max(ttlMs, minLifetimeMs), maxLifetimeMs));
    return { type: 'addresses', addresses };
  }

  /** One client for each lookup: cancelling one cancels no other. */
  #newClient(): DnsResolver {
    const client = new DnsResolver({ timeout: 1500, tries: 2 });
    if (this.#options.servers !== undefined) client.setServers([...this.#options.servers]);
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const client of this.#open) client.cancel();
    await Promise.allSettled(this.#underWay.values());
  }
}

type Answers = readonly { readonly address: string; readonly ttl: number }[];

class Failure {
  /** Whether the servers said that there is nothing, other than not answering. */
  readonly known: boolean;
  constructor(known: boolean) {
    this.known = known;
  }
}

function nothing(error: unknown): Failure {
  const code = errnoOf(error);
  return new Failure(code === 'ENOTFOUND' || code === 'ENODATA');
}
