import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { MIB, sleep, type Namespace } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { acme, other, scripted, untilStopped, useImageBuilders } from './image-builder.fixture.ts';
import type { RunnerRequest } from './runner.ts';

const bench = useImageBuilders();
const { start, submit, ended, isRunning, logOf } = bench;

describe('builds at the image-builder', () => {
  it('ends a build that is silent for an hour, or runs for too long, by the clock', async () => {
    let nowMs = 0;
    const clock = { now: () => nowMs, tickMs: 5 };
    const limits = { silenceMs: 3600_000, wallMs: 7200_000 };
    let began = Promise.withResolvers<RunnerRequest>();
    const runner = scripted(async (request) => {
      request.onLine('began');
      began.resolve(request);
      await untilStopped(request);
    });
    const builder = await start(runner, limits, { clock });
    const silent = await submit(builder);
    await began.promise;
    nowMs += 3_599_000;
    await sleep(50);
    expect((await bench.metadata.imageBuilds.find(acme, silent.id))?.status).toBe('running');
    nowMs += 2000;
    expect(await ended(silent.id)).toMatchObject({
      status: 'failed',
      problem: { code: 'BUILD_SILENT', details: { lastLines: ['began'] } },
    });
    began = Promise.withResolvers();
    const long = await submit(builder);
    const { onLine } = await began.promise;
    for (let i = 0; i < 8; i++) {
      nowMs += 1000_000;
      await sleep(20);
      onLine(`${i}`);
    }
    expect(await ended(long.id)).toMatchObject({ problem: { code: 'BUILD_WALL_TIME' } });
  });

  it('stops a flood of a gibibyte at the limit and keeps its last lines', async () => {
    const limits = { logBytes: 4 * MIB };
    let sent = 0;
    const runner = scripted(async ({ onLine, signal }) => {
      const line = 'x'.repeat(65_535);
      for (; sent < 1024 ** 3; sent += line.length + 1) {
        onLine(`${sent} ${line}`);
        if (sent % (16 * MIB) < 65_536) await sleep(0);
        if (signal.aborted && sent % (64 * MIB) < 65_536) onLine('still going');
      }
      onLine('the very last');
      signal.throwIfAborted();
    });
    const builder = await start(runner, limits);
    const build = await ended((await submit(builder)).id);
    expect(sent).toBeGreaterThanOrEqual(1024 ** 3);
    const { lastLines } = build.problem!.details as { lastLines: string[] };
    expect(build.problem).toMatchObject({ code: 'BUILD_LOG_BYTES', details: { limit: limits.logBytes } });
    expect([lastLines.length, lastLines.at(-1)]).toEqual([20, 'the very last']);
    expect(build.logBytes).toBeLessThanOrEqual(limits.logBytes);
    expect(build.logBytes).toBeGreaterThan(limits.logBytes - 70_000);
  });

  it('cancels a running build and one that waits, and nothing else', async () => {
    // The lease is never renewed while this runs: the worker hears of it in its own process.
    const builder = await start(scripted(untilStopped), { running: 1 }, { leaseMs: 3_600_000 });
    const [running, waiting] = [await submit(builder), await submit(builder)];
    await isRunning(running.id);
    await builder.cancel(other, running.id);
    await builder.cancel(acme, 'unknown');
    expect((await bench.metadata.imageBuilds.find(acme, running.id))?.status).toBe('running');
    for (const { id } of [waiting, running, running]) await builder.cancel(acme, id);
    for (const { id } of [waiting, running]) {
      expect(await ended(id)).toMatchObject({ status: 'cancelled', problem: { code: 'BUILD_CANCELLED' } });
    }
  });

  it('runs nothing for callers of whom it has no runner', async () => {
    const none = await start(scripted(untilStopped), {}, { runners: {} });
    await expect(submit(none)).rejects.toMatchObject({ code: 'BUILD_ISOLATION_UNAVAILABLE' });
  });

  it.each([
    { running: 2, order: undefined },
    { running: 1, order: 'a o a o a o a a a a' },
  ])('never runs more than $running, and lets namespaces take turns', async ({ running, order }) => {
    const seen: string[] = [];
    let now = 0;
    let most = 0;
    const gate = Promise.withResolvers<void>();
    const runner = scripted(async ({ namespace }) => {
      await gate.promise;
      seen.push(namespace[0]!);
      most = Math.max(most, ++now);
      await sleep(15);
      now--;
    });
    const builder = await start(runner, { running });
    const ids: [Namespace, string][] = [];
    for (let i = 0; i < 7; i++) ids.push([acme, (await submit(builder, acme)).id]);
    for (let i = 0; i < 3; i++) ids.push([other, (await submit(builder, other)).id]);
    gate.resolve();
    for (const [namespace, id] of ids) await ended(id, namespace);
    expect(most).toBe(running);
    expect(seen).toHaveLength(10);
    // With two at a time the order is also a matter of how long each one takes.
    if (order !== undefined) expect(seen.join(' ')).toBe(order);
  });

  it('gives a build back when it is shut down, and the next one runs it', async () => {
    const first = await start(scripted(untilStopped));
    const { id } = await submit(first);
    await isRunning(id);
    await first[Symbol.asyncDispose]();
    expect(await bench.metadata.imageBuilds.find(acme, id)).toMatchObject({ status: 'queued', attempt: 0 });
    await start(scripted(async ({ onLine }) => onLine('again')));
    const build = await ended(id);
    expect(build).toMatchObject({ status: 'failed', attempt: 1 });
    expect(await logOf(id)).toEqual(['again']);
  });

  it('runs a build whose worker is gone once more, then gives it up', async () => {
    const waiting = await start(scripted(untilStopped), { running: 0 });
    const ids = [(await submit(waiting)).id, (await submit(waiting)).id];
    const { imageBuilds } = bench.metadata;
    const all = { trusts: ['tenant'] as const, running: 9, runningPerNamespace: 9, leaseMs: 60_000 };
    // Workers that never say anything again: one of each build, and a second one of the second.
    const claims = [await imageBuilds.claim(all), await imageBuilds.claim(all)];
    expect(claims.map((claim) => claim?.build.id)).toEqual(ids);
    for (const claim of claims) await imageBuilds.renew(claim!, 1);
    await expect.poll(async () => (await imageBuilds.list(acme, { limit: 9, status: 'queued' })).length).toBe(2);
    await start(scripted(untilStopped), { running: 1 });
    await isRunning(ids[0]!);
    await expect.poll(() => logOf(ids[0]!)).toEqual(['The build starts again: what ran it before is gone.']);
    const last = await imageBuilds.claim({ ...all, leaseMs: 1 });
    expect(last?.build).toMatchObject({ id: ids[1], attempt: 2 });
    expect(await ended(ids[1]!)).toMatchObject({ status: 'failed', attempt: 2, problem: { code: 'BUILD_LOST' } });
    expect((await imageBuilds.find(acme, ids[0]!))?.status).toBe('running');
  });

  it('expires what waits for too long', async () => {
    const builder = await start(scripted(untilStopped), { running: 0, queueMs: 50 });
    const build = await ended((await submit(builder)).id);
    expect(build.problem).toMatchObject({ code: 'BUILD_QUEUE_EXPIRED' });
  });

  it('leaves neither contexts nor scratch files, and tells nobody what failed inside', async () => {
    const builder = await start(scripted(async () => Promise.reject(new TypeError('a secret of the service'))));
    const build = await ended((await submit(builder)).id);
    expect(build.problem).toMatchObject({ code: 'BUILD_FAILED', message: 'The build service failed.' });
    expect(JSON.stringify(build.problem)).not.toContain('secret');
    expect(builder.errors.map(({ message }) => message)).toEqual(['a secret of the service']);
    await expect.poll(() => bench.keys()).toEqual([]);
    const scratch = (await readdir(bench.directory)).filter((name) => name.startsWith('scratch-'));
    for (const name of scratch) expect(await readdir(join(bench.directory, name))).toEqual([]);
  });
});
