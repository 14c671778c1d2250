import { Worker } from 'node:worker_threads';

import * as fc from 'fast-check';
import { expect, it, vi } from 'vitest';

import { randomBytes } from '../test-data.ts';
import { SharedIdSet } from './shared-id-set.ts';

const id = (seed: number) => randomBytes(seed + 1, 32);

it('is a set', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(200), { maxLength: 400 }), (seeds) => {
      const set = new SharedIdSet(201);
      const again = new SharedIdSet(set.memory);
      const seen = new Set<number>();
      for (const [i, seed] of seeds.entries()) {
        expect((i % 2 === 0 ? set : again).add(id(seed))).toBe(!seen.has(seed));
        seen.add(seed);
      }
      expect(again.size).toBe(seen.size);
    }),
  );
});

it('refuses more than it was made for and stays what it was', () => {
  const set = new SharedIdSet(3);
  for (const seed of [1, 2, 3]) set.add(id(seed));
  expect(() => set.add(id(4))).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
  expect(set.add(id(2))).toBe(false);
  expect(set.size).toBe(3);
});

it('knows the last id that fits when another thread adds it between two looks', () => {
  const set = new SharedIdSet(1);
  const other = new SharedIdSet(set.memory);
  const atomics: { load(words: Int32Array, index: number): number } = Atomics;
  const load = atomics.load.bind(Atomics);
  const spy = vi.spyOn(atomics, 'load').mockImplementationOnce((words, index) => {
    const before = load(words, index);
    expect(other.add(id(1))).toBe(true);
    return before;
  });
  try {
    expect(set.add(id(1))).toBe(false);
  } finally {
    spy.mockRestore();
  }
  expect(() => set.add(id(2))).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
});

it('tells exactly one of several threads that an id is new', async () => {
  const count = 20_000;
  const set = new SharedIdSet(count);
  const module = new URL('shared-id-set.ts', import.meta.url).href;
  // Each thread adds the same ids, made from a counter; it reports how many were new to it.
  const script = `
    import { parentPort, workerData } from 'node:worker_threads';
    const { SharedIdSet } = await import(${JSON.stringify(module)});
    const set = new SharedIdSet(workerData);
    const bytes = new Uint8Array(32);
    let added = 0;
    for (let i = 0; i < ${count}; i++) {
      new DataView(bytes.buffer).setUint32(8, i);
      if (set.add(bytes)) added++;
    }
    parentPort.postMessage(added);`;
  const run = () =>
    new Promise<number>((resolve, reject) => {
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`), {
        workerData: set.memory,
        execArgv: ['--conditions=@decant/source'],
      });
      worker.once('message', resolve);
      worker.once('error', reject);
    });
  const added = await Promise.all([run(), run(), run()]);
  expect(added.reduce((sum, one) => sum + one)).toBe(count);
  expect(set.size).toBe(count);
});
