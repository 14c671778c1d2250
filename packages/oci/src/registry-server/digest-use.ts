/**
 * Keeps a collection away from blobs that requests are just using: any number may use one at a time, and it is removed only
 * while nobody does. For one process; between processes, age alone keeps them apart.
 */
export class DigestUse {
  readonly #users = new Map<string, number>();
  readonly #removals = new Map<string, Promise<unknown>>();

  /** Runs an action that relies on a blob or its mark; waits while that blob is being removed. */
  async using<T>(digest: string, action: () => Promise<T>): Promise<T> {
    for (let removal = this.#removals.get(digest); removal !== undefined; removal = this.#removals.get(digest)) {
      await removal.catch(() => undefined);
    }
    this.#users.set(digest, (this.#users.get(digest) ?? 0) + 1);
    try {
      return await action();
    } finally {
      const left = this.#users.get(digest)! - 1;
      if (left === 0) this.#users.delete(digest);
      else this.#users.set(digest, left);
    }
  }

  /** Runs an action while nobody uses the blob; false, without running it, when somebody does. */
  async removing(digest: string, action: () => Promise<boolean>): Promise<boolean> {
    if (this.#users.has(digest) || this.#removals.has(digest)) return false;
    const removal = action();
    this.#removals.set(digest, removal);
    try {
      return await removal;
    } finally {
      this.#removals.delete(digest);
    }
  }
}
