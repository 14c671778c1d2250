import { DecantError, type ObjectStore } from '@decant/core';
import { createMemoryObjectStore } from '@decant/dataplane';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { restingObject, restsAs } from './resting-object.ts';

const KEY = 'ns/a/object';
const never = undefined;

/** A store with one object, which is read in pieces of these lengths; counts the reads that were begun and ended. */
function storeOf(bytes: Uint8Array, lengths: readonly number[] = []) {
  const inner = createMemoryObjectStore();
  const reads = { begun: 0, ended: 0 };
  const store: ObjectStore = {
    ...inner,
    async *stream() {
      reads.begun++;
      try {
        let at = 0;
        for (const length of [...lengths, bytes.length]) {
          const end = Math.min(bytes.length, at + length);
          if (end > at) yield bytes.subarray(at, end);
          at = end;
        }
      } finally {
        reads.ended++;
      }
    },
  };
  return { inner, store, reads };
}

function cut(bytes: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const length of [...lengths, bytes.length]) {
    pieces.push(bytes.subarray(at, Math.min(bytes.length, at + length)));
    at = Math.min(bytes.length, at + length);
  }
  return pieces;
}

const failing = (error: unknown): ObjectStore => ({
  ...createMemoryObjectStore(),
  head: async () => ({ key: KEY, sizeBytes: 4 }),
  get: () => Promise.reject(error),
  // oxlint-disable-next-line require-yield -- it fails before its first piece
  async *stream() {
    throw error;
  },
});

describe('restsAs', () => {
  const lengths = fc.array(fc.nat(12), { maxLength: 8 });

  it('is told by the bytes alone, however both sides are cut', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 40 }), lengths, lengths, async (bytes, there, here) => {
        const { store, reads } = storeOf(bytes, there);
        expect(await restsAs(store, KEY, cut(bytes, here), never)).toBe(true);
        for (const other of [
          Buffer.concat([bytes, Buffer.of(0)]),
          ...(bytes.length === 0 ? [] : [bytes.subarray(0, -1), bytes.subarray(1)]),
          ...Array.from(bytes, (_, at) => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte))),
        ]) {
          const isSame = Buffer.from(other).equals(bytes);
          expect(await restsAs(store, KEY, cut(other, here), never)).toBe(isSame);
        }
        expect(reads.ended).toBe(reads.begun);
      }),
    );
  });

  it('is not so of an object that is not there; what fails otherwise says nothing', async () => {
    expect(await restsAs(createMemoryObjectStore(), KEY, [Uint8Array.of(1)], never)).toBe(false);
    const broken = new DecantError('INTERNAL', 'The disk does not answer.');
    await expect(restsAs(failing(broken), KEY, [Uint8Array.of(1)], never)).rejects.toBe(broken);
  });

  it('ends with the reason when it is aborted, whatever the store says then', async () => {
    const reason = new Error('enough');
    const gone = failing(new DecantError('OBJECT_NOT_FOUND', 'It is gone.'));
    await expect(restsAs(gone, KEY, [Uint8Array.of(1)], AbortSignal.abort(reason))).rejects.toBe(reason);
  });
});

describe('restingObject', () => {
  it('gives an object of that length and no other', async () => {
    const store = createMemoryObjectStore();
    await store.put(KEY, Uint8Array.of(1, 2, 3));
    expect(await restingObject(store, KEY, 3, never)).toEqual(Uint8Array.of(1, 2, 3));
    for (const length of [0, 2, 4]) expect(await restingObject(store, KEY, length, never)).toBeUndefined();
    expect(await restingObject(store, `${KEY}s`, 3, never)).toBeUndefined();
  });

  it('gives none that changes while it is read; what fails otherwise says nothing', async () => {
    for (const change of [new RangeError('outside'), new DecantError('OBJECT_NOT_FOUND', 'It is gone.')]) {
      expect(await restingObject(failing(change), KEY, 4, never)).toBeUndefined();
      const reason = new Error('enough');
      await expect(restingObject(failing(change), KEY, 4, AbortSignal.abort(reason))).rejects.toBe(reason);
    }
    const broken = new DecantError('INTERNAL', 'The disk does not answer.');
    await expect(restingObject(failing(broken), KEY, 4, never)).rejects.toBe(broken);
  });
});
