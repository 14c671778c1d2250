import { isDecantError, type ObjectStore } from '@decant/core';

import type { DigestUse } from './digest-use.ts';
import type { RegistryKeys } from './keys.ts';
import type { Manifests } from './manifests.ts';
import type { Uploads } from './uploads.ts';

export interface CollectRegistryOptions {
  /** How long nothing must have needed a blob before it goes, in milliseconds; default a day. */
  readonly graceMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a collection did. */
export interface RegistryCollection {
  /** Blobs taken from a repository in which no manifest names them. */
  readonly unlinked: number;
  /** Blobs removed because no repository has them any more. */
  readonly removed: number;
  readonly removedBytes: number;
  /** Blobs, of repositories and of the whole, that go if nothing needs them until their time is over. */
  readonly waiting: number;
}

export const DEFAULT_GRACE_MS = 24 * 60 * 60 * 1000;

interface CollectorParts {
  readonly store: ObjectStore;
  readonly keys: RegistryKeys;
  readonly manifests: Manifests;
  readonly uploads: Uploads;
  readonly use: DigestUse;
}

/**
 * Mark and sweep. Roots are all manifests of a repository, tagged or not, since they can be pulled by digest. A blob that no
 * manifest of its repository names is marked with the time, and taken from the repository when the mark is older than the grace
 * period; bytes that no repository has are marked and removed in the same way. A client that asks for a blob or sends it again
 * removes the mark. A manifest written between the last look and the removal is seen by a second look, which gives the blob
 * back: its bytes stay for another grace period.
 */
export class RegistryCollector {
  readonly #parts: CollectorParts;

  constructor(parts: CollectorParts) {
    this.#parts = parts;
  }

  async collect({ graceMs = DEFAULT_GRACE_MS, signal }: CollectRegistryOptions = {}): Promise<RegistryCollection> {
    const run = new Run(this.#parts, graceMs, signal ?? new AbortController().signal);
    for (const repository of await run.repositories()) await run.unlink(repository);
    await run.removeBytes();
    await this.#parts.use.removeOld(run.signal);
    const { unlinked, removed, removedBytes, waiting } = run;
    return { unlinked, removed, removedBytes, waiting };
  }
}

class Run implements RegistryCollection {
  unlinked = 0;
  removed = 0;
  removedBytes = 0;
  waiting = 0;
  readonly #parts: CollectorParts;
  readonly #graceMs: number;
  readonly signal: AbortSignal;
  /** Digits of the digests that some repository has. */
  readonly #linked = new Set<string>();

  constructor(parts: CollectorParts, graceMs: number, signal: AbortSignal) {
    this.#parts = parts;
    this.#graceMs = graceMs;
    this.signal = signal;
  }

  async repositories(): Promise<Set<string>> {
    const { store, keys } = this.#parts;
    const names = new Set<string>();
    for await (const { key } of store.list(keys.repositories(), { signal: this.signal })) {
      const name = keys.repositoryOf(key);
      if (name !== undefined) names.add(name);
    }
    return names;
  }

  async unlink(repository: string): Promise<void> {
    const { store, keys, manifests, uploads, use } = this.#parts;
    const signal = this.signal;
    await uploads.removeOld(repository, signal);
    const named = new Set<string>();
    const seen = new Set<string>();
    const lookAgain = () => manifests.addNamedBlobs(repository, { named, seen }, signal);
    await lookAgain();
    const marks = await this.#names(keys.linkMarks(repository));
    for (const [hex] of await this.#names(keys.links(repository))) {
      const digest = `sha256:${hex}`;
      const mark = keys.linkMark(repository, digest);
      const marked = marks.delete(hex);
      if (named.has(digest)) {
        this.#linked.add(hex);
        if (marked) await store.delete(mark, { signal });
        continue;
      }
      const due = await this.#isDue(mark);
      const gone =
        due &&
        (await use.removing(digest, async () => {
          if ((await store.head(mark, { signal })) === undefined) return false;
          await store.delete(keys.link(repository, digest), { signal });
          await lookAgain();
          const needed = named.has(digest);
          if (needed) await store.put(keys.link(repository, digest), new Uint8Array(), { signal });
          await store.delete(mark, { signal });
          return !needed;
        }));
      if (gone) this.unlinked++;
      else this.#linked.add(hex);
    }
    for (const [hex] of marks) await store.delete(keys.linkMark(repository, `sha256:${hex}`), { signal });
  }

  /** Removes the bytes that no repository has; after all repositories were looked through. */
  async removeBytes(): Promise<void> {
    const { store, keys, use } = this.#parts;
    const signal = this.signal;
    const marks = await this.#names(keys.blobMarks());
    const due = new Map<string, number>();
    for (const [hex, sizeBytes] of await this.#names(keys.blobs())) {
      const mark = keys.blobMark(`sha256:${hex}`);
      const marked = marks.delete(hex);
      if (!this.#linked.has(hex)) {
        if (await this.#isDue(mark)) due.set(hex, sizeBytes);
      } else if (marked) {
        await store.delete(mark, { signal });
      }
    }
    // What was given to a repository before its mark was made shows now, what is given later removes the mark.
    if (due.size > 0) {
      for (const repository of await this.repositories()) {
        for (const [hex] of await this.#names(keys.links(repository))) due.delete(hex);
      }
    }
    for (const [hex, sizeBytes] of due) {
      const digest = `sha256:${hex}`;
      const mark = keys.blobMark(digest);
      const gone = await use.removing(digest, async () => {
        // Whoever gives the blob to a repository removes the mark.
        if ((await store.head(mark, { signal })) === undefined) return false;
        await store.delete(keys.blob(digest), { signal });
        await store.delete(mark, { signal });
        return true;
      });
      if (!gone) continue;
      this.removed++;
      this.removedBytes += sizeBytes;
    }
    for (const [hex] of marks) await store.delete(keys.blobMark(`sha256:${hex}`), { signal });
  }

  /** Whether a mark is old enough; makes one where there is none. */
  async #isDue(mark: string): Promise<boolean> {
    const { store } = this.#parts;
    const signal = this.signal;
    let since: number | undefined;
    try {
      since = Number(new TextDecoder().decode(await store.get(mark, { signal })));
    } catch (error) {
      if (!isDecantError(error, 'OBJECT_NOT_FOUND')) throw error;
    }
    const now = Date.now();
    // A clock that was set back must not keep things forever, so a mark of the future is made anew.
    if (since === undefined || !(since <= now)) {
      since = now;
      await store.put(mark, new TextEncoder().encode(String(now)), { signal });
    }
    const due = now - since >= this.#graceMs;
    if (!due) this.waiting++;
    return due;
  }

  /** Names right below a prefix that are digits of a digest, with the sizes of the objects. */
  async #names(prefix: string): Promise<Map<string, number>> {
    const names = new Map<string, number>();
    for await (const { key, sizeBytes } of this.#parts.store.list(prefix, { signal: this.signal })) {
      const name = key.slice(prefix.length);
      if (/^[0-9a-f]{64}$/.test(name)) names.set(name, sizeBytes);
    }
    return names;
  }
}
