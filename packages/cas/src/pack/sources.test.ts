import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { chunkSourceContract, testFrames } from '@decant/core/contract';
import type { ChunkFrame, Fetch } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { createHttpRanges } from './http-ranges.ts';
import { createPackSource } from './pack-source.ts';
import { packsOf, type TestPacks } from './test-packs.ts';

const hash = await loadHashProvider();
const nothing = () => Promise.resolve();

interface TestServer extends AsyncDisposable {
  readonly origin: string;
  readonly ranges: string[];
}

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

async function serve(answer: Answer): Promise<TestServer> {
  const ranges: string[] = [];
  const server = createServer((request, response) => {
    ranges.push(request.headers.range ?? '');
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    ranges,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A plain file server: one range, 206; none, 200; a bad one, 416. */
function packFiles({ packs }: TestPacks): Answer {
  return (request, response) => {
    const pack = packs[Number(/^\/(\d+)/.exec(request.url ?? '')?.[1])];
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    if (pack === undefined) response.writeHead(404).end();
    else if (range === null) response.writeHead(200, { 'content-length': pack.length }).end(pack);
    else if (Number(range[1]) >= pack.length) response.writeHead(416).end();
    else {
      const [from, to] = [Number(range[1]), Math.min(Number(range[2]), pack.length - 1)];
      const headers = { 'content-range': `bytes ${from}-${to}/${pack.length}`, 'content-length': to - from + 1 };
      response.writeHead(206, headers).end(pack.subarray(from, to + 1));
    }
  };
}

describe('a chunk source over packs in memory', () => {
  chunkSourceContract(async (frames) => {
    const all = packsOf(frames, hash);
    const readRange = async (pack: number, offset: number, length: number) =>
      all.packs[pack]!.subarray(offset, offset + length);
    return { source: createPackSource({ ...all, readRange }), [Symbol.asyncDispose]: nothing };
  });
});

describe('a chunk source over HTTP', () => {
  chunkSourceContract(async (frames) => {
    const all = packsOf(frames, hash);
    const server = await serve(packFiles(all));
    const readRange = createHttpRanges({ fetch, url: (pack) => `${server.origin}/${pack}` });
    return {
      source: createPackSource({ ...all, readRange }),
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  });

  it('asks for neighbours in requests of 1 MiB or more, and not across large gaps', async () => {
    const frames = testFrames(600);
    const all = packsOf(frames, hash, 600);
    await using server = await serve(packFiles(all));
    const readRange = createHttpRanges({ fetch, url: (pack) => `${server.origin}/${pack}` });
    const source = createPackSource({ ...all, readRange });
    const drain = async (wanted: readonly ChunkFrame[]) => {
      server.ranges.length = 0;
      for await (const frame of source.get(wanted.map(({ id }) => id))) expect(frame.stored.length).toBeGreaterThan(0);
      return server.ranges.map((range) => {
        const [from, to] = range.slice('bytes='.length).split('-').map(Number) as [number, number];
        return to - from + 1;
      });
    };
    const lengths = await drain(frames);
    expect(lengths.reduce((sum, length) => sum + length)).toBe(
      frames.reduce((sum, { stored }) => sum + stored.length, 0),
    );
    for (const length of lengths.slice(0, -1)) {
      expect(length).toBeGreaterThanOrEqual(2 ** 20);
      expect(length).toBeLessThan(2 ** 20 + 4 * 4096);
    }
    // Every eighth chunk: about 50 KiB between two of them, which is cheaper to read than to ask again.
    expect((await drain(frames.filter((_, i) => i % 8 === 0))).length).toBeLessThanOrEqual(lengths.length + 1);
    expect((await drain([frames[0]!, frames[100]!])).length).toBe(2);
  });
});

describe('createHttpRanges', async () => {
  const all = packsOf(testFrames(20), hash);
  const read = async (
    answer: Answer,
    { fetch: through = fetch, signal, timeoutMs }: { fetch?: Fetch; signal?: AbortSignal; timeoutMs?: number } = {},
  ) => {
    await using server = await serve(answer);
    const readRange = createHttpRanges({ fetch: through, url: () => `${server.origin}/0?X-Secret=1`, timeoutMs });
    return await readRange(0, 48, 1000, { signal });
  };
  const body = Buffer.alloc(1000, 7);

  it('gives exactly the range', async () => {
    expect(await read(packFiles(all))).toEqual(all.packs[0]!.slice(48, 1048));
  });

  it.each<[string, Answer, string, boolean]>([
    ['a pack that is not there', (_, response) => response.writeHead(404).end(), 'CAS_CHUNK_MISSING', false],
    ['a pack that is too short', (_, response) => response.writeHead(416).end(), 'CAS_CHUNK_MISSING', false],
    ['a refusal', (_, response) => response.writeHead(403).end(), 'HTTP_STATUS', false],
    ['a server that is busy', (_, response) => response.writeHead(503).end(), 'HTTP_STATUS', true],
    ['a server that asks for patience', (_, response) => response.writeHead(429).end(), 'HTTP_STATUS', true],
    ['a server that waited for too long', (_, response) => response.writeHead(408).end(), 'HTTP_STATUS', true],
    [
      'the whole instead of a range',
      (_, response) => response.writeHead(200).end(all.packs[0]),
      'HTTP_BODY_INVALID',
      true,
    ],
    [
      'another range',
      (_, response) => response.writeHead(206, { 'content-range': 'bytes 0-999/9999' }).end(body),
      'HTTP_BODY_INVALID',
      true,
    ],
    ['too few bytes', (_, response) => response.writeHead(206).end(body.subarray(1)), 'HTTP_BODY_INVALID', true],
    [
      'too many bytes',
      (_, response) => response.writeHead(206).end(Buffer.concat([body, body])),
      'HTTP_BODY_INVALID',
      true,
    ],
    [
      'a connection that is cut',
      (_, response) => {
        response.writeHead(206, { 'content-length': 1000 }).write(body.subarray(0, 10));
        setTimeout(() => response.destroy(), 20);
      },
      'HTTP_UNREACHABLE',
      true,
    ],
  ])('names %s', async (_, answer, code, retryable) => {
    const error = await read(answer).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code, retryable });
    expect(JSON.stringify(error) + (error as Error).message).not.toContain('X-Secret');
  });

  it('ends a server that keeps silent, before or within the body, and keeps a reason', async () => {
    const silent: Answer = () => undefined;
    const halting: Answer = (_, response) => void response.writeHead(206).write(body.subarray(0, 10));
    await expect(read(silent, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'TIMEOUT' });
    await expect(read(halting, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'TIMEOUT' });
    const stop = new AbortController();
    const reason = new Error('enough');
    setTimeout(() => stop.abort(reason), 50);
    await expect(read(halting, { signal: stop.signal })).rejects.toBe(reason);
    // A fetch that does not listen to its signal.
    const deaf: Fetch = () => new Promise(() => undefined);
    await expect(read(silent, { fetch: deaf, timeoutMs: 50 })).rejects.toMatchObject({ code: 'TIMEOUT' });
    // Nor a body; what is left of it, or of a refusal, is given up.
    for (const [pieces, status, code] of [
      [[], 206, 'TIMEOUT'],
      [[body, body], 206, 'HTTP_BODY_INVALID'],
      [[body], 503, 'HTTP_STATUS'],
    ] as const) {
      let cancelled = false;
      const halting = new ReadableStream<Uint8Array>({
        start: (controller) => pieces.forEach((piece) => controller.enqueue(piece)),
        cancel: () => void (cancelled = true),
      });
      const answering: Fetch = () => Promise.resolve(new Response(halting, { status }));
      const limit = code === 'TIMEOUT' ? { timeoutMs: 50 } : {};
      await expect(read(silent, { fetch: answering, ...limit })).rejects.toMatchObject({ code });
      expect(cancelled).toBe(true);
    }
  });
});
