import { describe, expect, it } from 'vitest';

import type { Fence, FenceListeners, FenceOptions } from '../fence/fence.ts';
import { openFencePool, type FencePool } from './fence-pool.ts';

const policy = { routes: [], deny: [] };
const asked = (extra: Partial<FenceOptions> = {}): FenceOptions => ({
  network: 'new',
  policy,
  onAudit: () => undefined,
  ...extra,
});

/** A pool on listeners that are numbered, and say what became of them. */
function pool(size: number, ports: readonly number[] = []) {
  const log: string[] = [];
  const end: (() => void)[] = [];
  let made = 0;
  const opened: FencePool = openFencePool(
    { size, ports },
    {
      async openListeners() {
        const number = made++;
        const listeners: FenceListeners = {
          networkNamespace: `/ready/${number}`,
          processId: number,
          ports,
          ended: new Promise((resolve) => (end[number] = () => resolve({ reason: 'killed' }))),
          async configure(_, signal) {
            signal?.throwIfAborted();
            log.push(`configured ${number}`);
            return { networkNamespace: `/ready/${number}` } as Fence;
          },
          async [Symbol.asyncDispose]() {
            log.push(`closed ${number}`);
          },
        };
        return listeners;
      },
      async openFence() {
        return { networkNamespace: '/new' } as Fence;
      },
    },
  );
  return { opened, log, end };
}

describe('openFencePool', () => {
  it('hands each fence out once, and opens others in their place', async () => {
    const { opened, log } = pool(2);
    await opened.filled();
    expect(opened.ready).toBe(2);
    const names = [];
    const told: string[] = [];
    const onNamespace = (path: string) => void told.push(path);
    for (let index = 0; index < 3; index++)
      names.push((await opened.openFence(asked({ onNamespace }))).networkNamespace);
    expect(told).toEqual(['/ready/0', '/ready/1']);
    expect(names).toEqual(['/ready/0', '/ready/1', '/new']);
    await expect.poll(() => opened.ready).toBe(2);
    await opened[Symbol.asyncDispose]();
    expect(log).toEqual(['configured 0', 'configured 1', 'closed 3', 'closed 2']);
    expect((await opened.openFence(asked())).networkNamespace).toBe('/new');
  });

  it('gives a new one for another namespace or other ports', async () => {
    const { opened } = pool(1, [8443]);
    await opened.filled();
    const route = { id: 'r', hosts: ['a.example'], protocol: 'http', matches: [], privateRanges: [] } as const;
    const of = async (extra: Partial<FenceOptions>) => (await opened.openFence(asked(extra))).networkNamespace;
    expect(await of({ network: { path: '/proc/1/ns/net' } })).toBe('/new');
    expect(await of({ policy: { routes: [{ ...route, ports: [9000] }], deny: [] } })).toBe('/new');
    expect(await of({ policy: { routes: [{ ...route, ports: [8443] }], deny: [] } })).toBe('/ready/0');
    await opened[Symbol.asyncDispose]();
  });

  it('forgets those that ended, and closes one whose launch was cut off', async () => {
    const { opened, log, end } = pool(2);
    await opened.filled();
    end[0]!();
    await expect.poll(() => opened.ready).toBe(1);
    await expect(opened.openFence(asked({ signal: AbortSignal.abort(new Error('enough')) }))).rejects.toThrow('enough');
    expect(log).toEqual(['closed 1']);
    await opened[Symbol.asyncDispose]();
  });

  it('closes what was being opened when it was disposed of', async () => {
    const { opened, log } = pool(2);
    await opened[Symbol.asyncDispose]();
    expect(log.toSorted()).toEqual(['closed 0', 'closed 1']);
    expect(opened.ready).toBe(0);
  });

  it('refuses sizes that are none', () => {
    for (const size of [0, 65, 1.5]) expect(() => openFencePool({ size })).toThrow(RangeError);
  });
});
