import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { isDecantError, Scope } from '@decant/core';
import * as fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';

import { followEvents, MAX_EVENT_CHARACTERS, readEvents, type ServerSentEvent } from './event-stream.ts';
import { createHttpClient } from './http-client.ts';
import { createNodeFetch } from './node/index.ts';

const sse = (body: string | ReadableStream<Uint8Array>) =>
  new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8' } });

async function collect(events: AsyncIterable<ServerSentEvent>) {
  const all: ServerSentEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

describe('readEvents', () => {
  it('reads names, ids, several data lines and skips comments', async () => {
    const text = ': hello\n\nid: 1\ndata: a\ndata: b\n\r\nevent: x\ndata:c\n\ndata: unfinished';
    expect(await collect(readEvents(sse(text)))).toEqual([
      { id: '1', event: undefined, data: 'a\nb' },
      { id: undefined, event: 'x', data: 'c' },
    ]);
  });

  it('reads the same whatever way the bytes are cut', async () => {
    const text = 'id: 7\ndata: grün 🌱\n\n: beat\n\ndata: {"a":1}\r\n\r\n';
    const whole = await collect(readEvents(sse(text)));
    expect(whole).toHaveLength(2);
    const bytes = new TextEncoder().encode(text);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 8 }), async (cuts) => {
        const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length];
        const pieces = at.slice(1).map((end, index) => bytes.slice(at[index], end));
        const stream = new ReadableStream<Uint8Array>({
          start(controller) {
            for (const piece of pieces) controller.enqueue(piece);
            controller.close();
          },
        });
        expect(await collect(readEvents(sse(stream)))).toEqual(whole);
      }),
    );
  });

  it('gives the connection back when it is left early', async () => {
    let cancelled = false;
    const stream = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new TextEncoder().encode('data: a\n\n')),
      cancel: () => void (cancelled = true),
    });
    for await (const { data } of readEvents(sse(stream))) {
      expect(data).toBe('a');
      break;
    }
    expect(cancelled).toBe(true);
  });

  it('refuses what is no event stream, a silent one and an endless event', async () => {
    await expect(collect(readEvents(new Response('{}')))).rejects.toMatchObject({ code: 'HTTP_BODY_INVALID' });
    const silent = sse(new ReadableStream<Uint8Array>());
    await expect(collect(readEvents(silent, { idleTimeoutMs: 30 }))).rejects.toMatchObject({ code: 'TIMEOUT' });
    const piece = new TextEncoder().encode('data: '.padEnd(MAX_EVENT_CHARACTERS / 2, 'x'));
    let given = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        given++;
        controller.enqueue(piece);
      },
    });
    await expect(collect(readEvents(sse(endless)))).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
    expect(given).toBeLessThan(8);
  });
});

describe('followEvents', () => {
  const scope = new Scope();
  let server: Server;
  let answer: (request: IncomingMessage, response: ServerResponse) => void;
  const asked: (string | undefined)[] = [];
  let client: ReturnType<typeof createHttpClient>;
  const isEnd = ({ data }: ServerSentEvent) => data === 'end';
  const quick = { isEnd, firstDelayMs: 1, maxDelayMs: 5 };

  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.headers['last-event-id'] as string | undefined);
      answer(request, response);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    scope.defer(() => {
      server.closeAllConnections();
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const http = scope.use(createNodeFetch());
    client = createHttpClient({ baseUrl: `http://127.0.0.1:${port}`, fetch: http.fetch });
  });
  afterAll(() => scope[Symbol.asyncDispose]());
  beforeEach(() => {
    asked.length = 0;
  });

  it('resumes after every cut, also one in the middle of an event', async () => {
    let cut = () => {};
    answer = (request, response) => {
      const next = Number(request.headers['last-event-id'] ?? 0) + 1;
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`id: ${next}\ndata: line ${next}\n\nid: ${next + 1}\ndata: half of li`);
      if (next < 30) cut = () => response.destroy();
      else {
        cut = () => {};
        response.end('ne\n\ndata: end\n\n');
      }
    };
    const events: ServerSentEvent[] = [];
    for await (const event of followEvents(client, '/log', quick)) {
      events.push(event);
      cut();
    }
    expect(events.map(({ data }) => data)).toEqual([
      ...Array.from({ length: 30 }, (_, index) => `line ${index + 1}`),
      'half of line',
      'end',
    ]);
    expect(asked).toHaveLength(30);
    expect(asked[0]).toBeUndefined();
    expect(asked[29]).toBe('29');
  });

  it('asks from the last event with an id on, and does not count the time of whoever takes the events', async () => {
    let aheadMs = 0;
    const now = performance.now.bind(performance);
    using _ = vi.spyOn(performance, 'now').mockImplementation(() => now() + aheadMs);
    const bodies = ['id: 5\ndata: a\n\ndata: b\n\n', 'data: c\n\n', 'id\ndata: d\n\n', 'data: end\n\n'];
    answer = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(bodies[asked.length - 1]);
    };
    const seen: string[] = [];
    for await (const { data } of followEvents(client, '/log', { ...quick, patienceMs: 1_000_000 })) {
      seen.push(data);
      aheadMs += 2_000_000;
    }
    expect(seen).toEqual(['a', 'b', 'c', 'd', 'end']);
    expect(asked).toEqual([undefined, '5', '5', undefined]);
  });

  it('waits longer and longer, up to a bound, and briefly again once an event has come', async () => {
    using _ = vi.spyOn(Math, 'random').mockReturnValue(0);
    using timers = vi.spyOn(globalThis, 'setTimeout');
    answer = (_, response) => {
      if (![5, 8].includes(asked.length)) {
        response.writeHead(503).end();
        return;
      }
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(asked.length === 5 ? 'data: a\n\n' : 'data: end\n\n');
    };
    await collect(followEvents(client, '/log', { isEnd, firstDelayMs: 3, maxDelayMs: 10 }));
    const delays = timers.mock.calls.map(([, delayMs]) => delayMs ?? 0).filter((delayMs) => delayMs >= 3);
    expect(delays.filter((delayMs) => delayMs <= 50)).toEqual([3, 6, 10, 10, 3, 6, 10]);
    const stop = new AbortController();
    const reason = new Error('enough');
    answer = (_, response) => response.writeHead(503).end();
    const pausing = { isEnd, firstDelayMs: 100_000, onCut: () => setImmediate(() => stop.abort(reason)) };
    await expect(collect(followEvents(client, '/log', { ...pausing, signal: stop.signal }))).rejects.toBe(reason);
  });

  it('waits for a server that is starting, and no longer than its patience', async () => {
    const statuses = [503, 404, 429, 502];
    answer = (_, response) => {
      const status = statuses.shift();
      if (status === undefined) {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.end('data: end\n\n');
      } else response.writeHead(status).end();
    };
    expect(await collect(followEvents(client, '/log', quick))).toHaveLength(1);

    // A clock that only the test moves, but for the little time that passes.
    asked.length = 0;
    let aheadMs = 0;
    const now = performance.now.bind(performance);
    using _ = vi.spyOn(performance, 'now').mockImplementation(() => now() + aheadMs);
    answer = (_, response) => response.writeHead(503).end();
    const patience = { patienceMs: 1_000_000, missingPatienceMs: 500_000, onCut: () => (aheadMs += 300_000) };
    const failure = await collect(followEvents(client, '/log', { ...quick, ...patience })).catch((e: unknown) => e);
    expect(isDecantError(failure, 'HTTP_STATUS')).toBe(true);
    expect(asked).toHaveLength(5);
    asked.length = 0;
    answer = (_, response) => response.writeHead(404).end();
    await expect(collect(followEvents(client, '/log', { ...quick, ...patience }))).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(asked).toHaveLength(3);
  });

  it('does not count the silence of a connection that stands', async () => {
    let aheadMs = 0;
    const now = performance.now.bind(performance);
    using _ = vi.spyOn(performance, 'now').mockImplementation(() => now() + aheadMs);
    let write = () => {};
    let cut = () => {};
    answer = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      if (asked.length > 1) {
        response.end('data: end\n\n');
        return;
      }
      write = () => response.write(': beat\n\n');
      cut = () => response.destroy();
      write();
    };
    let beats = 0;
    const onBytes = () => {
      aheadMs += 400_000;
      if (++beats < 5) write();
      else cut();
    };
    expect(await collect(followEvents(client, '/log', { ...quick, patienceMs: 1_000_000, onBytes }))).toHaveLength(1);
    expect(beats).toBeGreaterThanOrEqual(5);
    expect(asked).toHaveLength(2);
  });

  it('gives up at once where another attempt is of no use', async () => {
    for (const [status, code] of [
      [401, 'UNAUTHORIZED'],
      [403, 'FORBIDDEN'],
      [200, 'HTTP_BODY_INVALID'],
    ] as const) {
      asked.length = 0;
      answer = (_, response) => response.writeHead(status, { 'content-type': 'application/json' }).end('{}');
      await expect(collect(followEvents(client, '/log', quick))).rejects.toMatchObject({ code });
      expect(asked).toHaveLength(1);
    }
  });

  it('ends with the reason of an abort while it waits', async () => {
    answer = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(': nothing yet\n\n');
    };
    const reason = new Error('enough');
    const signal = AbortSignal.any([AbortSignal.timeout(60_000)]);
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 30);
    const both = AbortSignal.any([signal, controller.signal]);
    await expect(collect(followEvents(client, '/log', { ...quick, signal: both }))).rejects.toBe(reason);
  });
});
