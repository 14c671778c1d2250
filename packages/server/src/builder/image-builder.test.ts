import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { buildFieldsSchema, MIB, parseNamespace, sleep, type DecantError, type Namespace } from '@decant/core';
import { createFileObjectStore } from '@decant/dataplane';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { openSqliteMetadata } from '../metadata/sqlite-store.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { createRegistry } from '../registry/registry.ts';
import { startImageBuilder, type ImageBuilder, type ImageBuilderOptions } from './image-builder.ts';
import { DEFAULT_BUILDER_LIMITS, type BuilderLimits } from './limits.ts';
import { createLocalRegistry } from './local-registry.ts';
import type { BuildRunner, RunnerRequest } from './runner.ts';

const acme = parseNamespace('acme');
const other = parseNamespace('other');

/** A runner whose builds do what the test says: how builds are kept is looked at here, not what engines do. */
function scripted(run: (request: RunnerRequest) => Promise<void>): BuildRunner {
  return {
    ready: async () => undefined,
    async run(request) {
      await run(request);
      throw new Error('a scripted build makes no image');
    },
    async [Symbol.asyncDispose]() {},
  };
}
const untilStopped = ({ signal }: RunnerRequest) => sleep(60_000, signal);

let directory: string;
let metadata: MetadataStore;
let contextFile: string;
const open: ImageBuilder[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'image-builder-'));
  metadata = await openSqliteMetadata(join(directory, 'metadata.sqlite'));
  contextFile = join(directory, 'context.tar');
  await writeFile(contextFile, Buffer.alloc(1024));
});
afterEach(async () => {
  for (const builder of open.splice(0)) await builder[Symbol.asyncDispose]();
  await metadata[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

async function start(
  runner: BuildRunner,
  limits: Partial<BuilderLimits> = {},
  change: Partial<ImageBuilderOptions> = {},
): Promise<ImageBuilder & { errors: DecantError[] }> {
  const store = createFileObjectStore({ directory: join(directory, 'objects'), fsync: 'never' });
  const scratchDirectory = await mkdtemp(join(directory, 'scratch-'));
  const errors: DecantError[] = [];
  const builder = startImageBuilder({
    metadata,
    store,
    registry: createLocalRegistry(createRegistry({ metadata, store })),
    runners: { tenant: runner },
    limits: { ...DEFAULT_BUILDER_LIMITS, ...limits },
    clock: { now: () => performance.now(), tickMs: 10 },
    scratchDirectory,
    idleMs: 20,
    leaseMs: 60_000,
    onError: (error) => errors.push(error),
    ...change,
  });
  open.push(builder);
  return Object.assign(builder, { errors });
}

const submit = (builder: ImageBuilder, namespace: Namespace = acme, name = 'app') =>
  builder.submit({
    namespace,
    trust: 'tenant',
    host: 'h',
    fields: buildFieldsSchema.parse({ image_name: name, dockerfile_text: 'FROM scratch\n' }),
    contextFile,
    contextBytes: 1024,
    contextDigest: `${Math.random()}`,
    idempotencyKey: undefined,
  });

async function ended(id: string, namespace: Namespace = acme) {
  for (let i = 0; i < 6000; i++) {
    const build = await metadata.imageBuilds.find(namespace, id);
    if (build?.finishedAt != null) return build;
    await sleep(10);
  }
  throw new Error('the build did not end');
}
const logOf = async (id: string) => {
  const build = (await metadata.imageBuilds.find(acme, id))!;
  return (await metadata.imageBuilds.readLog(build, 0)).flatMap(({ lines }) => lines);
};
const isRunning = async (id: string) => {
  for (let i = 0; i < 6000; i++) {
    if ((await metadata.imageBuilds.find(acme, id))?.status === 'running') return;
    await sleep(10);
  }
  throw new Error('the build did not start');
};

describe('the image-builder', () => {
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
    expect((await metadata.imageBuilds.find(acme, silent.id))?.status).toBe('running');
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
    const builder = await start(scripted(untilStopped), { running: 1 });
    const [running, waiting] = [await submit(builder), await submit(builder)];
    await isRunning(running.id);
    await builder.cancel(other, running.id);
    await builder.cancel(acme, 'unknown');
    expect((await metadata.imageBuilds.find(acme, running.id))?.status).toBe('running');
    for (const { id } of [waiting, running, running]) await builder.cancel(acme, id);
    for (const { id } of [waiting, running]) {
      expect(await ended(id)).toMatchObject({ status: 'cancelled', problem: { code: 'BUILD_CANCELLED' } });
    }
  });

  it('never runs more than it may, and lets namespaces take turns', async () => {
    const seen: string[] = [];
    let now = 0;
    let most = 0;
    const runner = scripted(async ({ namespace }) => {
      seen.push(namespace);
      most = Math.max(most, ++now);
      await sleep(15);
      now--;
    });
    const quiet = await start(runner, { running: 2 }, { runners: {} });
    // Nobody runs builds yet: all ten wait, and nobody in particular refuses them.
    await expect(submit(quiet)).rejects.toMatchObject({ code: 'BUILD_ISOLATION_UNAVAILABLE' });
    const gate = Promise.withResolvers<void>();
    const held = await start(
      scripted(async (request) => {
        await gate.promise;
        await runner.run(request).catch(() => undefined);
      }),
      { running: 2 },
    );
    const ids: [Namespace, string][] = [];
    for (let i = 0; i < 7; i++) ids.push([acme, (await submit(held, acme)).id]);
    for (let i = 0; i < 3; i++) ids.push([other, (await submit(held, other)).id]);
    gate.resolve();
    for (const [namespace, id] of ids) await ended(id, namespace);
    expect(most).toBe(2);
    expect(seen.lastIndexOf('other')).toBeLessThan(8);
    expect(seen).toHaveLength(10);
  });

  it('gives a build back when it is shut down, and the next one runs it', async () => {
    const first = await start(scripted(untilStopped));
    const { id } = await submit(first);
    await isRunning(id);
    await first[Symbol.asyncDispose]();
    expect(await metadata.imageBuilds.find(acme, id)).toMatchObject({ status: 'queued', attempt: 0 });
    await start(scripted(async ({ onLine }) => onLine('again')));
    const build = await ended(id);
    expect(build).toMatchObject({ status: 'failed', attempt: 1 });
    expect(await logOf(id)).toEqual(['again']);
  });

  it('runs a build whose worker is gone once more, then gives it up', async () => {
    const { id } = await submit(await start(scripted(untilStopped), { running: 0 }));
    const limits = { trusts: ['tenant'] as const, running: 1, runningPerNamespace: 1, leaseMs: 1 };
    // Two workers that never say anything again.
    await metadata.imageBuilds.claim(limits);
    const builder = await start(scripted(untilStopped), { running: 1 });
    await isRunning(id);
    for (let i = 0; i < 6000 && (await metadata.imageBuilds.find(acme, id))?.attempt !== 2; i++) await sleep(10);
    await expect.poll(() => logOf(id)).toEqual(['The build starts again: what ran it before is gone.']);
    await builder.cancel(acme, id);
    expect(await ended(id)).toMatchObject({ attempt: 2, status: 'cancelled' });
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
    const store = createFileObjectStore({ directory: join(directory, 'objects'), fsync: 'never' });
    const left = async () => {
      const keys: string[] = [];
      for await (const { key } of store.list('')) keys.push(key);
      return keys;
    };
    for (let i = 0; i < 6000 && (await left()).length > 0; i++) await sleep(10);
    expect(await left()).toEqual([]);
    const scratch = (await readdir(directory)).filter((name) => name.startsWith('scratch-'));
    for (const name of scratch) expect(await readdir(join(directory, name))).toEqual([]);
  });
});
