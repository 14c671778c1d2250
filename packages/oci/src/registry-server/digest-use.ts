import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { isDecantError, type ObjectStore } from '@decant/core';

import type { RegistryKeys } from './keys.ts';

/** A removal takes a few requests to the store. What is older was left behind, by a process that was killed. */
const REMOVAL_MS = 60_000;
/** A removal that got no further in this time gives up, long before others take it for left behind. */
const GIVE_UP_MS = 20_000;
/** A use that is older was left behind: the longest is the writing of one blob from the parts that were sent. */
const USE_MS = 24 * 60 * 60 * 1000;
/** Between two looks whether a removal in another process is over. */
const POLL_MS = 20;

interface Use {
  users: number;
  /** Settles when no other process is removing the blob. */
  readonly ready: Promise<void>;
  readonly key: string;
}

/**
 * Keeps a collection away from blobs that requests are just using: any number may use one at a time, and it is removed only
 * while nobody does, in this process or another one on the same store. Each side says in the store what it is about to do, and
 * only then looks what the other side says; so at least one of the two sees the other.
 */
export class DigestUse {
  readonly #store: ObjectStore;
  readonly #keys: RegistryKeys;
  readonly #uses = new Map<string, Use>();
  readonly #removals = new Map<string, Promise<unknown>>();

  constructor(store: ObjectStore, keys: RegistryKeys) {
    this.#store = store;
    this.#keys = keys;
  }

  /** Runs an action that relies on a blob or its mark; waits while that blob is being removed. */
  async using<T>(digest: string, action: () => Promise<T>): Promise<T> {
    for (let removal = this.#removals.get(digest); removal !== undefined; removal = this.#removals.get(digest)) {
      await removal.catch(() => undefined);
    }
    let use = this.#uses.get(digest);
    if (use === undefined) {
      const key = this.#keys.use(digest, randomUUID());
      use = { users: 0, key, ready: this.#announceUse(digest, key) };
      // Whoever awaits it gets its failure.
      use.ready.catch(() => undefined);
      this.#uses.set(digest, use);
    }
    use.users++;
    try {
      await use.ready;
      return await action();
    } finally {
      if (--use.users === 0) {
        this.#uses.delete(digest);
        // A use that stays behind delays a removal by a day, no more.
        await this.#store.delete(use.key).catch(() => undefined);
      }
    }
  }

  /** Runs an action while nobody uses the blob; false, without running it, when somebody does. */
  async removing(digest: string, action: () => Promise<boolean>): Promise<boolean> {
    if (this.#uses.has(digest) || this.#removals.has(digest)) return false;
    const removal = this.#remove(digest, action);
    this.#removals.set(digest, removal);
    try {
      return await removal;
    } finally {
      this.#removals.delete(digest);
    }
  }

  /** Removes what processes left behind that were killed. */
  async removeOld(signal: AbortSignal): Promise<void> {
    await this.#someFresh(this.#keys.uses(), USE_MS, signal);
    await this.#someFresh(this.#keys.removals(), REMOVAL_MS, signal);
  }

  async #announceUse(digest: string, key: string): Promise<void> {
    await this.#store.put(key, now());
    while (await this.#someFresh(this.#keys.removals(digest), REMOVAL_MS)) await sleep(POLL_MS);
  }

  async #remove(digest: string, action: () => Promise<boolean>): Promise<boolean> {
    const key = this.#keys.removal(digest, randomUUID());
    const began = performance.now();
    try {
      await this.#store.put(key, now());
      if (await this.#someFresh(this.#keys.uses(digest), USE_MS)) return false;
      if (performance.now() - began > GIVE_UP_MS) return false;
      return await action();
    } finally {
      await this.#store.delete(key);
    }
  }

  /** Whether one of the notes below a prefix is younger than that; those that are older go. */
  async #someFresh(prefix: string, mostMs: number, signal?: AbortSignal): Promise<boolean> {
    let fresh = false;
    for await (const { key } of this.#store.list(prefix, { signal })) {
      const since = await this.#timeIn(key, signal);
      if (since === undefined) continue;
      // A time far in the future is one of a clock that was set back since.
      if (Math.abs(Date.now() - since) <= mostMs) fresh = true;
      else await this.#store.delete(key, { signal });
    }
    return fresh;
  }

  async #timeIn(key: string, signal: AbortSignal | undefined): Promise<number | undefined> {
    try {
      return Number(new TextDecoder().decode(await this.#store.get(key, { signal }))) || 0;
    } catch (error) {
      // It went since it was listed.
      if (isDecantError(error, 'OBJECT_NOT_FOUND')) return undefined;
      throw error;
    }
  }
}

function now(): Uint8Array {
  return new TextEncoder().encode(String(Date.now()));
}
