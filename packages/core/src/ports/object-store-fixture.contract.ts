import { expect } from 'vitest';

import type { ObjectStore } from './object-store.ts';

/** One store for one test; disposing of it removes what it holds. */
export interface ObjectStoreFixture extends AsyncDisposable {
  readonly store: ObjectStore;
  /** A second way to the same objects, such as another process would have; default: the same store. */
  readonly second?: ObjectStore;
}

export const bytesOf = (text: string) => new TextEncoder().encode(text);
export const code = (expected: string) => expect.objectContaining({ code: expected });

export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of source) all.push(item);
  return all;
}

export async function* pieces(...list: Uint8Array[]): AsyncGenerator<Uint8Array, void> {
  for (const piece of list) {
    await Promise.resolve();
    yield piece;
  }
}
