import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';

import { buildEndOf, buildFieldsSchema, parseNamespace, unescapeLogLine } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import type { BuildOutcome, ClaimedBuild } from '../metadata/image-build-store.ts';
import { openSqliteMetadata } from '../metadata/sqlite-store.ts';
import type { MetadataStore } from '../metadata/store.ts';
import type { ImageBuilder } from './image-builder.ts';
import { logStream } from './log-stream.ts';

const namespace = parseNamespace('acme');
let metadata: MetadataStore;
let claim: ClaimedBuild;

beforeEach(async () => {
  metadata = await openSqliteMetadata(':memory:');
  const fields = buildFieldsSchema.parse({ image_name: 'app' });
  const build = {
    ...({ id: randomUUID(), namespace, trust: 'tenant', host: 'h', name: 'app', tag: 'latest' } as const),
    ...{ cacheKey: 'app', fields, contextBytes: 1, idempotencyKey: undefined, digest: 'd' },
  };
  await metadata.imageBuilds.submit(build, { queued: 9, repeatMs: 0 });
  claim = (await metadata.imageBuilds.claim({
    trusts: ['tenant'],
    running: 1,
    runningPerNamespace: 1,
    leaseMs: 60_000,
  }))!;
});
afterEach(async () => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  await metadata[Symbol.asyncDispose]();
});

const append = (...lines: string[]) => metadata.imageBuilds.appendLog(claim, lines);
const finish = (outcome: BuildOutcome) => metadata.imageBuilds.finish(claim, outcome);
const succeed = () => finish({ status: 'succeeded', imageDigest: 'sha256:1', architecture: 'amd64' });
const failed = (code: string, message: string): BuildOutcome => ({ status: 'failed', problem: { code, message } });
const changed = (_: string, timeoutMs: number, signal: AbortSignal) =>
  delay(Math.min(timeoutMs, 5), undefined, { signal }).catch(() => undefined);

function open(afterLine = 0, signal = new AbortController().signal, waiting: ImageBuilder['changed'] = changed) {
  return logStream({
    builds: metadata.imageBuilds,
    builder: { changed: waiting },
    namespace,
    build: claim.build,
    afterLine,
    signal,
  });
}

/** What a client written from the contract makes of a stream: its lines by number, and how it ended. */
async function read(stream: ReadableStream<Uint8Array>, most = Infinity) {
  const lines: [number, string][] = [];
  const ends: unknown[] = [];
  let rest = '';
  const decoder = new TextDecoder();
  for await (const piece of stream) {
    const blocks = (rest + decoder.decode(piece, { stream: true })).split('\n\n');
    rest = blocks.pop() ?? '';
    for (const block of blocks) {
      if (block.startsWith(':')) continue;
      const [, id, data] = /^id: (\d+)\ndata: (.*)$/s.exec(block)!;
      const end = buildEndOf(data!);
      if (end === undefined) lines.push([Number(id), unescapeLogLine(data!)]);
      else ends.push(end);
      if (lines.length >= most) return { lines, ends };
    }
  }
  expect(rest).toBe('');
  return { lines, ends };
}

describe('the log of a build as events', () => {
  it('gives lines by number and one end, also to whoever comes after it', async () => {
    const reading = read(open());
    await append('one', 'two');
    await delay(20);
    await append('{"done":true}', ' {"error":"x"}', '');
    await succeed();
    const lines = [
      [1, 'one'],
      [2, 'two'],
      [3, '{"done":true}'],
      [4, ' {"error":"x"}'],
      [5, ''],
    ];
    expect(await reading).toEqual({ lines, ends: [{ done: true }] });
    expect(await read(open())).toEqual({ lines, ends: [{ done: true }] });
    for (const after of [5, 6, 1000]) expect(await read(open(after))).toEqual({ lines: [], ends: [{ done: true }] });
  });

  it('goes on behind the last line that a client has, through twenty cut connections', async () => {
    const all: [number, string][] = [];
    const writing = (async () => {
      for (let i = 1; i <= 60; i++) {
        await append(`line ${i}`);
        if (i % 3 === 0) await delay(3);
      }
      await succeed();
    })();
    for (let i = 0; i < 20; i++) all.push(...(await read(open(all.length), 1 + (i % 3))).lines);
    await writing;
    const last = await read(open(all.length));
    all.push(...last.lines);
    expect(all).toEqual(Array.from({ length: 60 }, (_, i) => [i + 1, `line ${i + 1}`]));
    expect(last.ends).toEqual([{ done: true }]);
  });

  it('ends with the reason of a failure, once', async () => {
    await append('x');
    await finish(failed('BUILD_STEP_FAILED', 'Step 1 failed.'));
    expect(await read(open())).toMatchObject({ ends: [{ error: 'Step 1 failed.' }] });
  });

  it('ends when the build is lost or forgotten', async () => {
    const other = { code: 'X', message: 'lost' };
    const options = { mostAttempts: 1, queueMs: 1e9, lost: other, expired: other, cancelled: other };
    await metadata.imageBuilds.renew(claim, 1);
    const reading = read(open());
    await delay(20);
    await metadata.imageBuilds.recover(options);
    expect((await reading).ends).toEqual([{ error: 'lost' }]);
    await metadata.imageBuilds.contextRemoved(claim.build.id);
    await delay(5);
    await metadata.imageBuilds.purge(0);
    expect((await read(open())).ends).toEqual([{ error: 'The build is no longer known.' }]);
  });

  it('is numbered to its end, and begins before there is a line', async () => {
    const stream = open();
    const reader = stream.getReader();
    const text = async () => Buffer.from((await reader.read()).value!).toString();
    expect(await text()).toBe(': log\n\n');
    await append('one');
    expect(await text()).toBe('id: 1\ndata: one\n\n');
    await succeed();
    expect(await text()).toBe('id: 2\ndata: {"done":true}\n\n');
    expect((await reader.read()).done).toBe(true);
  });

  it('goes on in the middle of what was written at once, and is whole before it ends', async () => {
    await append('1', '2', '3', '4');
    const long = 'x'.repeat(200_000);
    for (let i = 0; i < 4; i++) await append(`${i}${long}`);
    await succeed();
    const { lines, ends } = await read(open(2));
    expect(lines.map(([number, line]) => [number, line[0]])).toEqual([
      [3, '3'],
      [4, '4'],
      ...[0, 1, 2, 3].map((i) => [5 + i, `${i}`]),
    ]);
    expect(ends).toEqual([{ done: true }]);
  });

  it('says what to do about a failure', async () => {
    await finish({ status: 'failed', problem: { code: 'BUILD_SILENT', message: 'It was silent.', hint: 'Say more.' } });
    expect((await read(open())).ends).toEqual([{ error: 'It was silent. Say more.' }]);
  });

  it('holds the end of a cancelled build back for whoever waits for the answer to that, and only then', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await finish({ status: 'cancelled', problem: { code: 'BUILD_CANCELLED', message: 'Cancelled.' } });
    const { finishedAt } = (await metadata.imageBuilds.find(namespace, claim.build.id))!;
    const waits: [string, number][] = [];
    const held = async (id: string, timeoutMs: number) => void waits.push([id, timeoutMs]);
    vi.setSystemTime(finishedAt! + 400);
    expect((await read(open(0, undefined, held))).ends).toEqual([{ error: 'Cancelled.' }]);
    expect(waits).toEqual([['', 500]]);
    vi.setSystemTime(finishedAt! + 600);
    expect((await read(open(0, undefined, held))).ends).toEqual([{ error: 'Cancelled.' }]);
    expect(waits).toHaveLength(1);
  });

  it('is never quiet for longer than proxies bear, and looks for itself what other processes wrote', async () => {
    let nowMs = 0;
    vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
    const waits = new Set<string>();
    const waiting = async (id: string, timeoutMs: number) => {
      waits.add(`${id} ${timeoutMs}`);
      nowMs += timeoutMs;
      if (nowMs > 40_000) await metadata.imageBuilds.cancel(namespace, id, { code: 'BUILD_CANCELLED', message: 'x' });
    };
    // Given back, it waits in the queue.
    await metadata.imageBuilds.release(claim);
    const pieces: string[] = [];
    for await (const piece of open(0, undefined, waiting)) pieces.push(Buffer.from(piece).toString());
    expect(pieces).toEqual([': log\n\n', ': waiting\n\n', ': waiting\n\n', 'id: 1\ndata: {"error":"x"}\n\n']);
    expect([...waits].slice(0, 1)).toEqual([`${claim.build.id} 500`]);
  });

  it('is no longer read for whoever does not take it any more', async () => {
    const asked = Promise.withResolvers<AbortSignal>();
    const stream = open(0, undefined, async (_, __, signal) => {
      asked.resolve(signal);
      if (!signal.aborted) await once(signal, 'abort');
    });
    const reader = stream.getReader();
    await reader.read();
    const next = reader.read();
    const signal = await asked.promise;
    expect(signal.aborted).toBe(false);
    await reader.cancel();
    expect(signal.aborted).toBe(true);
    await next;
  });

  it('stops reading when the client is gone', async () => {
    const gone = new AbortController();
    const reading = read(open(0, gone.signal));
    await delay(10);
    gone.abort();
    expect(await reading).toEqual({ lines: [], ends: [] });
  });
});
