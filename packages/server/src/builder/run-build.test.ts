import { sleep, type DecantError } from '@decant/core';
import { describe, expect, it, vi } from 'vitest';

import type { ImageBuildStore } from '../metadata/image-build-store.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { acme, scripted, untilStopped, useImageBuilders } from './image-builder.fixture.ts';
import type { RunnerRequest } from './runner.ts';

const bench = useImageBuilders();
const { start, submit, isRunning, ended } = bench;

/** The metadata with some calls about builds answered otherwise. */
function withBuilds(change: Partial<ImageBuildStore>): MetadataStore {
  const imageBuilds = new Proxy(bench.metadata.imageBuilds, {
    get(target, name) {
      const value: unknown = Reflect.get({ ...change }, name) ?? Reflect.get(target, name);
      return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
    },
  });
  return new Proxy(bench.metadata, {
    get: (target, name) => (name === 'imageBuilds' ? imageBuilds : Reflect.get(target, name)),
  });
}
const failing = () => Promise.reject(new Error('the database is away'));

describe('a running build', () => {
  it.each<[string, Partial<ImageBuildStore>]>([
    ['whose claim is lost', { renew: async () => 'lost' }],
    ['whose claim cannot be renewed', { renew: failing }],
    ['whose claim is lost to its log', { appendLog: async () => false }],
    ['whose log cannot be written', { appendLog: failing }],
  ])('%s is stopped, and what becomes of it is left to others', async (_, change) => {
    const stopped = Promise.withResolvers<DecantError>();
    const runner = scripted(async (request) => {
      request.onLine('a line');
      await untilStopped(request).catch((error: unknown) => stopped.resolve(error as DecantError));
      // What a step that was cut short throws says nothing about the build.
      throw new Error('cut short');
    });
    const builder = await start(runner, {}, { metadata: withBuilds(change), leaseMs: 5000 });
    const { id } = await submit(builder);
    expect(await stopped.promise).toMatchObject({ code: 'BUILD_LOST' });
    await builder[Symbol.asyncDispose]();
    expect(await bench.metadata.imageBuilds.find(acme, id)).toMatchObject({ finishedAt: null, problem: null });
  });

  it('leaves no timer when it has ended, so that a program can', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    try {
      const began = Promise.withResolvers<void>();
      const gate = Promise.withResolvers<void>();
      const runner = scripted(async () => {
        began.resolve();
        await gate.promise;
      });
      const { id } = await submit(await start(runner));
      await began.promise;
      expect(vi.getTimerCount()).toBe(2);
      gate.resolve();
      await ended(id);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it('ends when another process was asked to cancel it', async () => {
    const { id } = await submit(await start(scripted(untilStopped), {}, { leaseMs: 5000 }));
    await isRunning(id);
    await bench.metadata.imageBuilds.cancel(acme, id, { code: 'BUILD_CANCELLED', message: '' });
    expect(await ended(id)).toMatchObject({ status: 'cancelled', problem: { message: 'The build was cancelled.' } });
  });

  it('is not hurt when nobody can be told what builds it', async () => {
    const builder = await start(
      scripted(async ({ onEngine, onLine }) => {
        onEngine('an engine');
        onLine('went on');
        // A rejection that nobody looks at ends a program.
        await sleep(20);
      }),
      {},
      { metadata: withBuilds({ setEngine: failing }) },
    );
    const { id } = await submit(builder);
    expect(await ended(id)).toMatchObject({ engine: null, problem: { code: 'BUILD_FAILED' } });
    expect(await bench.logOf(id)).toEqual(['went on']);
  });

  it('that was cancelled stays so when the service is shut down before it has stopped', async () => {
    const gate = Promise.withResolvers<void>();
    const began = Promise.withResolvers<void>();
    const slow = async (request: RunnerRequest) => {
      began.resolve();
      await untilStopped(request).catch(() => undefined);
      await gate.promise;
      throw new Error('cut short');
    };
    const builder = await start(scripted(slow));
    const { id } = await submit(builder);
    await began.promise;
    await builder.cancel(acme, id);
    const disposed = builder[Symbol.asyncDispose]();
    gate.resolve();
    await disposed;
    expect(await bench.metadata.imageBuilds.find(acme, id)).toMatchObject({ status: 'cancelled' });
  });

  it('is over before the image-builder is, which ends its runner last', async () => {
    const order: string[] = [];
    const began = Promise.withResolvers<void>();
    const runner = scripted(async (request) => {
      began.resolve();
      await untilStopped(request).catch(() => undefined);
      await sleep(20);
      order.push('build');
    });
    const builder = await start({ ...runner, [Symbol.asyncDispose]: async () => void order.push('runner') });
    await submit(builder);
    await began.promise;
    await builder[Symbol.asyncDispose]();
    expect(order).toEqual(['build', 'runner']);
  });

  it('is taken up by a service whose database was away for a moment', async () => {
    let failures = 2;
    const claim: ImageBuildStore['claim'] = async (limits) =>
      failures-- > 0 ? failing() : bench.metadata.imageBuilds.claim(limits);
    const builder = await start(
      scripted(async () => undefined),
      {},
      { metadata: withBuilds({ claim }) },
    );
    await ended((await submit(builder)).id);
    expect(builder.errors.map(({ message }) => message).slice(0, 2)).toEqual(Array(2).fill('the database is away'));
  });
});
