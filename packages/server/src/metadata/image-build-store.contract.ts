import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

import { buildFieldsSchema, parseNamespace, type Namespace } from '@decant/core';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { ClaimLimits, ImageBuildStore, NewImageBuild } from './image-build-store.ts';
import type { MetadataStoreFixture } from './contract-kit.ts';

const acme = parseNamespace('acme');
const other = parseNamespace('other');
const problem = (code: string) => ({ code, message: 'because' });
const LIMITS: ClaimLimits = { trusts: ['tenant'], running: 2, runningPerNamespace: 2, leaseMs: 60_000 };
const RECOVERY = {
  mostAttempts: 2,
  queueMs: 60_000,
  lost: problem('BUILD_LOST'),
  expired: problem('BUILD_QUEUE_EXPIRED'),
  cancelled: problem('BUILD_CANCELLED'),
};

/** What every {@link ImageBuildStore} must do. */
export function imageBuildStoreContract(name: string, open: () => Promise<MetadataStoreFixture>): void {
  describe(`ImageBuildStore contract: ${name}`, () => {
    let fixture: MetadataStoreFixture;
    let builds: ImageBuildStore;
    let second: ImageBuildStore;
    beforeEach(async () => {
      fixture = await open();
      builds = fixture.store.imageBuilds;
      second = fixture.second.imageBuilds;
    });
    afterEach(() => fixture[Symbol.asyncDispose]());

    const newBuild = (namespace: Namespace = acme, change: Partial<NewImageBuild> = {}): NewImageBuild => ({
      id: randomUUID(),
      namespace,
      trust: 'tenant',
      host: 'h:1',
      name: 'app',
      tag: 'latest',
      cacheKey: 'app',
      fields: buildFieldsSchema.parse({ image_name: 'app' }),
      contextBytes: 10,
      idempotencyKey: undefined,
      digest: randomUUID(),
      ...change,
    });
    const submit = async (namespace: Namespace = acme, change: Partial<NewImageBuild> = {}) =>
      (await builds.submit(newBuild(namespace, change), { queued: 100, repeatMs: 60_000 })).build;
    const claimed = async (limits: Partial<ClaimLimits> = {}, store = builds) => {
      const claim = await store.claim({ ...LIMITS, ...limits });
      if (claim === undefined) throw new Error('nothing to claim');
      return claim;
    };

    it('finds and lists builds of their own namespace alone, newest first, page by page', async () => {
      const ids: string[] = [];
      for (let i = 0; i < 5; i++) ids.unshift((await submit()).id);
      const foreign = await submit(other);
      expect(await builds.find(acme, foreign.id)).toBeUndefined();
      expect(await second.find(other, foreign.id)).toMatchObject({ id: foreign.id, status: 'queued', host: 'h:1' });
      const first = await second.list(acme, { limit: 3 });
      const rest = await second.list(acme, { limit: 3, before: first.at(-1)!.seq });
      expect([...first, ...rest].map(({ id }) => id)).toEqual(ids);
      expect(await builds.list(acme, { limit: 9, status: 'running' })).toEqual([]);
    });

    it('answers what is sent again with the first build', async () => {
      const key = newBuild(acme, { idempotencyKey: 'k' });
      const limits = { queued: 100, repeatMs: 60_000 };
      const first = await builds.submit(key, limits);
      const again = await second.submit({ ...newBuild(acme), idempotencyKey: 'k' }, limits);
      expect([first.repeated, again.repeated, again.build.id]).toEqual([false, true, first.build.id]);
      expect(await builds.submit({ ...newBuild(other), idempotencyKey: 'k' }, limits)).toMatchObject({
        repeated: false,
      });
      const digest = randomUUID();
      const plain = await builds.submit(newBuild(acme, { digest }), limits);
      expect((await builds.submit(newBuild(acme, { digest }), limits)).build.id).toBe(plain.build.id);
      expect(await builds.submit(newBuild(other, { digest }), limits)).toMatchObject({ repeated: false });
      // What was cancelled, or is old, is wanted anew.
      expect(await builds.submit(newBuild(acme, { digest }), { ...limits, repeatMs: -1 })).toMatchObject({
        repeated: false,
      });
      for (const { id } of await builds.list(acme, { limit: 9 })) await builds.cancel(acme, id, problem('X'));
      expect(await builds.submit(newBuild(acme, { digest }), limits)).toMatchObject({ repeated: false });
    });

    it('runs anew what is to be cancelled, and what came with a key or from another namespace', async () => {
      const limits = { queued: 100, repeatMs: 60_000 };
      const digest = randomUUID();
      await submit(acme, { digest });
      const running = await claimed();
      expect(await builds.submit(newBuild(acme, { digest }), limits)).toMatchObject({ repeated: true });
      await builds.cancel(acme, running.build.id, problem('X'));
      expect(await builds.submit(newBuild(acme, { digest }), limits)).toMatchObject({ repeated: false });
      // Who gave a key has said what is the same.
      const keyed = randomUUID();
      await submit(other, { digest: keyed, idempotencyKey: 'k' });
      await submit(acme, { digest: keyed, idempotencyKey: 'other' });
      expect(await builds.submit(newBuild(acme, { digest: keyed }), limits)).toMatchObject({ repeated: false });
      expect(await builds.submit(newBuild(acme, { idempotencyKey: 'k' }), limits)).toMatchObject({ repeated: false });
      expect(await builds.findByIdempotencyKey(acme, 'x')).toBeUndefined();
    });

    it('is not changed any more by whoever ran it, once it has ended', async () => {
      const { id } = await submit();
      const claim = await claimed();
      expect(await builds.setEngine(claim, 'one')).toBe(true);
      expect(await builds.finish(claim, { status: 'failed', problem: problem('X') })).toBe(true);
      const ended = await builds.find(acme, id);
      expect(await builds.finish(claim, { status: 'succeeded', imageDigest: 'sha256:x', architecture: null })).toBe(
        false,
      );
      expect(await builds.setEngine(claim, 'two')).toBe(false);
      expect(await builds.release(claim)).toBe(false);
      expect(await builds.appendLog(claim, ['late'])).toBe(false);
      expect(await builds.renew(claim, 1000)).toBe('lost');
      expect(await second.find(acme, id)).toEqual(ended);
    });

    it('is cancelled, not run again, when its worker is gone and somebody wanted it to end', async () => {
      const { id } = await submit();
      const claim = await claimed();
      await builds.cancel(acme, id, problem('BUILD_CANCELLED'));
      await builds.renew(claim, 1);
      await delay(5);
      expect(await second.recover(RECOVERY)).toEqual([id]);
      expect(await builds.find(acme, id)).toMatchObject({
        status: 'cancelled',
        problem: { code: 'BUILD_CANCELLED' },
        finishedAt: expect.any(Number) as number,
      });
    });

    it('refuses more waiting builds than a namespace may have', async () => {
      const limits = { queued: 2, repeatMs: 0 };
      await builds.submit(newBuild(), limits);
      await builds.submit(newBuild(), limits);
      await expect(builds.submit(newBuild(), limits)).rejects.toMatchObject({ code: 'BUILD_QUEUE_FULL' });
      await builds.submit(newBuild(other), limits);
    });

    it('runs ten builds two at a time: namespaces take turns, places say the order', async () => {
      const order: string[] = [];
      const names = new Map<string, string>();
      for (let i = 0; i < 7; i++) names.set((await submit(acme)).id, `a${i}`);
      for (let i = 0; i < 3; i++) names.set((await submit(other)).id, `o${i}`);
      const places = await second.positions([...names.keys()]);
      const planned = [...places].sort((a, b) => a[1] - b[1]).map(([id]) => names.get(id));
      expect(planned).toEqual(['a0', 'o0', 'a1', 'o1', 'a2', 'o2', 'a3', 'a4', 'a5', 'a6']);
      const running = [await claimed(), await claimed({}, second)];
      expect(await builds.claim(LIMITS)).toBeUndefined();
      while (running.length > 0) {
        const claim = running.shift()!;
        order.push(names.get(claim.build.id)!);
        expect((await builds.positions([claim.build.id])).size).toBe(0);
        await builds.finish(claim, { status: 'failed', problem: problem('X') });
        const next = await builds.claim(LIMITS);
        if (next !== undefined) running.push(next);
      }
      expect(order).toEqual(planned);
    });

    it('lets namespaces take turns also when more of them wait than builds run', async () => {
      const third = parseNamespace('third');
      const names = new Map<string, string>();
      for (let i = 0; i < 4; i++) names.set((await submit(acme)).id, `a${i}`);
      for (let i = 0; i < 3; i++) names.set((await submit(other)).id, `o${i}`);
      for (let i = 0; i < 2; i++) names.set((await submit(third)).id, `t${i}`);
      const order: string[] = [];
      for (let next = await builds.claim({ ...LIMITS, running: 1 }); next !== undefined;) {
        order.push(names.get(next.build.id)!);
        await builds.finish(next, { status: 'failed', problem: problem('X') });
        // The times of two starts have to differ.
        await delay(3);
        const places = [...(await builds.positions([...names.keys()]))].sort((a, b) => a[1] - b[1]);
        next = await builds.claim({ ...LIMITS, running: 1 });
        expect(next?.build.id).toBe(places[0]?.[0]);
      }
      expect(order).toEqual(['a0', 'o0', 't0', 'a1', 'o1', 't1', 'a2', 'o2', 'a3']);
    });

    it('prefers who has less running to who has waited since longer', async () => {
      const limits = { running: 9, runningPerNamespace: 9 };
      for (let i = 0; i < 3; i++) await submit(acme);
      await claimed(limits);
      await claimed(limits);
      for (let i = 0; i < 2; i++) await submit(other);
      await delay(3);
      const short = await claimed(limits);
      expect(short.build.namespace).toBe(other);
      await builds.finish(short, { status: 'failed', problem: problem('X') });
      expect((await claimed(limits)).build.namespace).toBe(other);
    });

    it('keeps a namespace to its share of what runs', async () => {
      await submit(acme);
      await submit(acme);
      await submit(other);
      const limits = { running: 3, runningPerNamespace: 1 };
      expect((await claimed(limits)).build.namespace).toBe(acme);
      expect((await claimed(limits)).build.namespace).toBe(other);
      expect(await builds.claim({ ...LIMITS, ...limits })).toBeUndefined();
    });

    it('gives builds only to those who run builds of that trust', async () => {
      await submit(acme, { trust: 'operator' });
      expect(await builds.claim(LIMITS)).toBeUndefined();
      expect((await claimed({ trusts: ['operator'] })).build.trust).toBe('operator');
    });

    it('takes a build from a worker that is gone, once, and refuses what that one writes later', async () => {
      const { id } = await submit();
      const first = await claimed({ leaseMs: 1 });
      await builds.appendLog(first, ['one', 'two']);
      await delay(5);
      expect(await second.recover(RECOVERY)).toEqual([]);
      const again = await claimed({ leaseMs: 1 }, second);
      expect(again.build).toMatchObject({ id, attempt: 2, logLines: 2 });
      expect(await builds.appendLog(first, ['late'])).toBe(false);
      expect(await builds.renew(first, 1000)).toBe('lost');
      expect(await builds.finish(first, { status: 'succeeded', imageDigest: 'sha256:x', architecture: null })).toBe(
        false,
      );
      await delay(5);
      expect(await builds.recover(RECOVERY)).toEqual([id]);
      expect(await builds.find(acme, id)).toMatchObject({ status: 'failed', problem: { code: 'BUILD_LOST' } });
      expect(await builds.recover(RECOVERY)).toEqual([]);
    });

    it('gives a build back without counting the start', async () => {
      await submit();
      const claim = await claimed();
      expect(await builds.release(claim)).toBe(true);
      expect((await claimed()).build.attempt).toBe(1);
    });

    it('ends what waits for too long', async () => {
      const { id } = await submit();
      expect(await builds.recover({ ...RECOVERY, queueMs: 60_000 })).toEqual([]);
      await delay(5);
      expect(await builds.recover({ ...RECOVERY, queueMs: 1 })).toEqual([id]);
      expect(await builds.find(acme, id)).toMatchObject({ problem: { code: 'BUILD_QUEUE_EXPIRED' } });
    });

    it('cancels what waits at once, asks what runs, and leaves what has ended', async () => {
      const waiting = await submit();
      expect(await builds.cancel(other, waiting.id, problem('BUILD_CANCELLED'))).toBeUndefined();
      expect(await builds.find(acme, waiting.id)).toMatchObject({ status: 'queued', problem: null });
      expect(await builds.cancel(acme, waiting.id, problem('BUILD_CANCELLED'))).toMatchObject({ status: 'cancelled' });
      await submit();
      const claim = await claimed();
      expect(await second.cancel(other, claim.build.id, problem('BUILD_CANCELLED'))).toBeUndefined();
      expect(await builds.renew(claim, 60_000)).toBe('held');
      expect(await second.recover(RECOVERY)).toEqual([]);
      expect(await builds.renew(claim, 60_000)).toBe('held');
      expect(await second.cancel(acme, claim.build.id, problem('BUILD_CANCELLED'))).toMatchObject({
        status: 'running',
      });
      expect(await builds.renew(claim, 1000)).toBe('cancelled');
      await builds.finish(claim, { status: 'succeeded', imageDigest: 'sha256:1', architecture: 'amd64' });
      expect(await builds.cancel(acme, claim.build.id, problem('X'))).toMatchObject({
        status: 'succeeded',
        problem: null,
      });
      expect(await builds.findByImage(acme, 'sha256:1')).toMatchObject({ id: claim.build.id, architecture: 'amd64' });
      expect(await builds.findByImage(other, 'sha256:1')).toBeUndefined();
    });

    it('gives every line of a log once, from whatever line it is asked', async () => {
      const pieces = fc.array(fc.array(fc.string({ maxLength: 20 }), { minLength: 1, maxLength: 5 }), { maxLength: 8 });
      await fc.assert(
        fc.asyncProperty(pieces, fc.nat(50), async (writes, after) => {
          await submit();
          const claim = await claimed();
          const lines = writes.map((piece) => piece.map((line) => line.replaceAll(/[\r\n]/g, '')));
          for (const piece of lines) await builds.appendLog(claim, piece);
          const all = lines.flat();
          const read = (await second.readLog(claim.build, after)).flatMap((chunk) =>
            chunk.lines.map((line, i) => [chunk.firstLine + i, line] as const).filter(([number]) => number > after),
          );
          expect(read).toEqual(all.map((line, i) => [i + 1, line] as const).slice(after));
          await builds.finish(claim, { status: 'failed', problem: problem('X') });
        }),
        { numRuns: 25 },
      );
    });

    it('gives a long log in pieces', async () => {
      await submit();
      const claim = await claimed();
      for (let i = 0; i < 4; i++) await builds.appendLog(claim, [`${i}`.repeat(200_000)]);
      const first = await second.readLog(claim.build, 0);
      expect(first.map(({ firstLine }) => firstLine)).toEqual([1, 2]);
      expect((await second.readLog(claim.build, 2)).map(({ firstLine }) => firstLine)).toEqual([3, 4]);
    });

    it('forgets old builds with their logs, once their contexts are gone', async () => {
      await submit();
      const claim = await claimed();
      await builds.appendLog(claim, ['x']);
      expect(await builds.withContext()).toEqual([]);
      await builds.finish(claim, { status: 'failed', problem: problem('X') });
      await delay(5);
      expect(await builds.purge(0)).toBe(0);
      expect((await builds.withContext()).map(({ id }) => id)).toEqual([claim.build.id]);
      await builds.contextRemoved(claim.build.id);
      expect(await builds.withContext()).toEqual([]);
      expect(await builds.purge(60_000)).toBe(0);
      expect(await builds.purge(0)).toBe(1);
      expect(await builds.find(acme, claim.build.id)).toBeUndefined();
      expect(await builds.readLog(claim.build, 0)).toEqual([]);
    });
  });
}
