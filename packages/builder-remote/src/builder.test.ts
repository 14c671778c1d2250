import { createHash } from 'node:crypto';
import type { ServerResponse } from 'node:http';

import { packMemoryContext, type MemoryFile } from '@decant/context';
import { DecantError, escapeLogLine } from '@decant/core';
import { createNodeFetch, type NodeFetch } from '@decant/transport/node';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { createRemoteBuilder, type RemoteBuildEvent, type RemoteBuildResult } from './builder.ts';
import { memoryContext } from './remote-context.ts';
import { scriptedService, SUCCEEDED, type ScriptedService } from './scripted-service.fixture.ts';

const files: MemoryFile[] = [
  { path: 'Dockerfile', content: 'FROM scratch\nCOPY a /a\n' },
  { path: 'a', content: 'from memory\n' },
];

async function finish(generator: AsyncGenerator<RemoteBuildEvent, RemoteBuildResult>) {
  const events: RemoteBuildEvent[] = [];
  for (;;) {
    const step = await generator.next();
    if (step.done === true) return { result: step.value, events };
    events.push(step.value);
  }
}

const linesOf = (events: readonly RemoteBuildEvent[]) =>
  events.flatMap((event) => (event.type === 'log' ? [event.line] : []));

describe('createRemoteBuilder', () => {
  let service: ScriptedService;
  let http: NodeFetch;
  const context = memoryContext(files);
  const open = (options: { patienceMs?: number; streaming?: boolean } = {}) =>
    createRemoteBuilder({ baseUrl: service.url, fetch: http.fetch, token: 'dk_test', ...options });

  beforeEach(async () => {
    service = await scriptedService();
    http = createNodeFetch();
  });
  afterEach(async () => {
    await service[Symbol.asyncDispose]();
    await http.close();
  });

  it.each([true, false])('submits the archive and what is to be made of it (streamed: %s)', async (streaming) => {
    const { result } = await finish(
      open({ streaming }).build({
        context,
        imageName: 'team/app:v1',
        buildArgs: { WHO: 'world, = "quoted"\n' },
        target: 'final',
        cache: 'refresh',
        cacheKey: 'team/app',
        architecture: 'arm64',
        streamingImage: false,
      }),
    );
    expect(result).toMatchObject({ image: SUCCEEDED.image_ref, architecture: 'arm64', buildId: 'b-1' });
    const [submitted] = service.submissions;
    expect(submitted!.fields).toEqual({
      image_name: 'team/app:v1',
      dockerfile: 'Dockerfile',
      build_args: '{"WHO":"world, = \\"quoted\\"\\n"}',
      nydus_convert: 'false',
      target: 'final',
      cache: 'refresh',
      cache_key: 'team/app',
      architecture: 'arm64',
    });
    const packed = packMemoryContext(files);
    for await (const piece of packed.stream) void piece;
    expect(createHash('sha256').update(submitted!.tar!).digest('hex')).toBe(await packed.digest);
    expect(result.sentBytes).toBe(submitted!.tar!.length);
    // What has ended is not cancelled.
    expect(service.cancelled).toEqual([]);
  });

  it('sends a Dockerfile that is not in the context beside it', async () => {
    const outside = {
      ...context,
      dockerfile: { path: null, displayPath: '/x/D', bytes: Buffer.from('FROM scratch\n') },
    };
    await finish(open().build({ context: outside }));
    expect(service.submissions[0]!.fields).toMatchObject({ dockerfile: '/x/D', dockerfile_text: 'FROM scratch\n' });
  });

  it('shows every line once and in order over 20 dropped connections', async () => {
    const all = Array.from(
      { length: 400 },
      (_, index) => `line ${index + 1}${index % 7 === 0 ? ' {"done": true}' : ''}`,
    );
    all[10] = '{"done": true}';
    all[11] = ' {"error": "not an error"}';
    let cuts = 0;
    service.log = (after, response, connection) => {
      const last = connection > 20 ? all.length : Math.min(all.length - 1, after + 15);
      // From time to time the service starts a little too early: the lines carry their numbers.
      for (let at = Math.max(0, after - (connection % 3)); at < last; at++) {
        response.write(`id: ${at + 1}\ndata: ${escapeLogLine(all[at]!)}\n\n`);
      }
      if (connection > 20) response.end('data: {"done": true}\n\n');
      else {
        cuts++;
        response.write(`id: ${last + 1}\ndata: half a li`, () => response.destroy());
      }
    };
    const { events } = await finish(open().build({ context }));
    expect(cuts).toBe(20);
    expect(linesOf(events)).toEqual(all);
    expect(events.filter(({ type }) => type === 'warning')).toEqual([]);
  });

  it('says so when lines are missing', async () => {
    const ids = [1, 3, 7];
    service.log = (_, response) =>
      response.end(`${ids.map((id) => `id: ${id}\ndata: line ${id}\n\n`).join('')}data: {"done": true}\n\n`);
    const { events } = await finish(open().build({ context }));
    const warnings = events.flatMap((event) => (event.type === 'warning' ? [event.message] : []));
    expect(warnings).toEqual([expect.stringMatching(/^1 lines/), expect.stringMatching(/^3 lines/)]);
  });

  it('waits for a builder that is starting, and submits once', async () => {
    const refusals = [503, 429, 404];
    service.intercept = (request, response) => {
      if (request.method !== 'POST' || refusals.length === 0) return false;
      request.resume();
      response.writeHead(refusals.shift()!, { 'content-type': 'application/json' }).end('{"message":"starting"}');
      return true;
    };
    const { events } = await finish(open().build({ context }));
    expect(service.submissions).toHaveLength(1);
    expect(events.filter(({ type }) => type === 'warning')).toHaveLength(3);
  });

  it('sends the same key again when the answer was lost', async () => {
    let lost = 0;
    service.intercept = (request) => {
      if (request.method !== 'POST' || lost > 0) return false;
      lost++;
      request.on('end', () => request.socket.destroy()).resume();
      return true;
    };
    await finish(open().build({ context }));
    expect(service.submissions).toHaveLength(1);
    expect(lost).toBe(1);
    expect(service.submissions[0]!.key).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('takes no refusal for a pause', async () => {
    for (const [status, code, expected] of [
      [400, 'USAGE', 'USAGE'],
      [401, undefined, 'UNAUTHORIZED'],
      [413, 'LIMIT_EXCEEDED', 'LIMIT_EXCEEDED'],
    ] as const) {
      service.requests.length = 0;
      service.intercept = (request, response) => {
        request.resume();
        response
          .writeHead(status, { 'content-type': 'application/json' })
          .end(JSON.stringify({ code, message: 'no', errors: [] }));
        return true;
      };
      await expect(finish(open().build({ context }))).rejects.toMatchObject({ code: expected });
      expect(service.requests).toHaveLength(1);
    }
  });

  it('ends with a typed error when the service is killed in the middle of a build', async () => {
    service.log = (_, response) => {
      response.write('id: 1\ndata: one\n\n');
      setTimeout(() => service.kill(), 50);
    };
    const started = performance.now();
    await expect(finish(open({ patienceMs: 700 }).build({ context }))).rejects.toMatchObject({
      code: 'HTTP_UNREACHABLE',
    });
    expect(performance.now() - started).toBeLessThan(60_000);
  });

  it('takes the truth from the status, whatever the log says', async () => {
    const problem = {
      code: 'BUILD_STEP_FAILED',
      message: 'The step failed.',
      hint: null,
      details: { exitCode: 7, command: 'RUN false', lastLines: ['x'] },
    };
    service.status = () => ({ ...SUCCEEDED, status: 'failed', image_ref: undefined, error: problem });
    await expect(finish(open().build({ context }))).rejects.toMatchObject({
      code: 'BUILD_STEP_FAILED',
      details: { exitCode: 7, buildId: 'b-1' },
    });
    service.status = () => ({ ...SUCCEEDED, status: 'cancelled', image_ref: undefined });
    await expect(finish(open().build({ context }))).rejects.toMatchObject({ code: 'BUILD_CANCELLED' });
    service.log = (_, response) => response.end('data: {"error": "said too early"}\n\n');
    service.status = () => ({ image_ref: 'r/i:1', status: 'READY' });
    expect((await finish(open().build({ context }))).result).toMatchObject({ image: 'r/i:1', architecture: 'amd64' });
  });

  it.each([
    [{ status: 'failed', error: { code: 'NO_SUCH_CODE', message: 'odd' } }, 'BUILD_FAILED', 'odd'],
    [{ status: 'failed', error: null }, 'BUILD_FAILED', 'does not say why'],
    [{ status: 'succeeded', image_ref: undefined }, 'BUILD_FAILED', 'does not say why'],
  ])('is told of a failure by a service that answers %j', async (told, code, message) => {
    service.status = () => ({ ...SUCCEEDED, ...told });
    await expect(finish(open().build({ context }))).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message) as string,
    });
    expect(service.cancelled).toEqual([]);
  });

  it('gives up a build that goes on after the end of its log, and one that may not be asked after', async () => {
    service.status = () => ({ ...SUCCEEDED, status: 'running', image_ref: undefined });
    await expect(finish(open({ patienceMs: 100 }).build({ context }))).rejects.toMatchObject({ code: 'TIMEOUT' });
    service.intercept = (request, response) => {
      if (request.url !== '/builds/b-1' || request.method !== 'GET') return false;
      response.writeHead(401).end();
      return true;
    };
    service.requests.length = 0;
    await expect(finish(open().build({ context }))).rejects.toMatchObject({ code: 'UNAUTHORIZED' });
    expect(service.requests.filter((request) => request === 'GET /builds/b-1')).toHaveLength(1);
  });

  it('cancels what is unknown without an error, and says so when the service does not do it', async () => {
    service.intercept = (request, response) => {
      if (request.method !== 'DELETE') return false;
      response.writeHead(request.url === '/builds/unknown' ? 404 : 403).end();
      return true;
    };
    await open().cancel('unknown');
    await expect(open().cancel('other')).rejects.toMatchObject({ details: { status: 403 } });
  });

  it('does not wait for long for a service that does not answer when it is to cancel', async () => {
    const bounded: number[] = [];
    vi.spyOn(AbortSignal, 'timeout').mockImplementation((milliseconds) => {
      bounded.push(milliseconds);
      return AbortSignal.abort(new Error('too long'));
    });
    try {
      service.log = (_, response) => response.write('id: 1\ndata: go\n\n');
      service.intercept = ({ method }) => method === 'DELETE';
      for await (const event of open().build({ context })) if (event.type === 'log') break;
      expect(bounded).toEqual([5000]);
    } finally {
      vi.restoreAllMocks();
    }
  });

  it('asks after a build whose log cannot be had', async () => {
    service.intercept = (request, response) => {
      if (request.url !== '/builds/b-1/logs') return false;
      response.writeHead(500).end();
      return true;
    };
    let asked = 0;
    service.status = () => ({ ...SUCCEEDED, ...(++asked < 3 ? { status: 'running', image_ref: undefined } : {}) });
    const { events, result } = await finish(open({ patienceMs: 300 }).build({ context }));
    expect(result.buildId).toBe('b-1');
    expect(events).toContainEqual(expect.objectContaining({ message: expect.stringContaining('cannot be followed') }));
  });

  it.each(['aborted', 'left'] as const)('cancels at the service when it is %s', async (how) => {
    service.log = (_, response) => response.write('id: 1\ndata: go\n\n');
    const controller = new AbortController();
    // Of the kind that losing the log is known by.
    const reason = new DecantError('TIMEOUT', 'enough', { retryable: true });
    const generator = open().build({ context }, { signal: controller.signal });
    for (let step = await generator.next(); step.done !== true; step = await generator.next()) {
      if (step.value.type === 'log') break;
    }
    const started = performance.now();
    if (how === 'aborted') {
      controller.abort(reason);
      await expect(finish(generator)).rejects.toBe(reason);
    } else await generator.return(undefined as never);
    expect(service.cancelled).toEqual(['/builds/b-1']);
    expect(performance.now() - started).toBeLessThan(60_000);
  });

  it('sends nothing more when it is left between two attempts', async () => {
    const keys: unknown[] = [];
    const attempts = (key: unknown) => keys.filter((one) => one === key).length;
    service.intercept = (request, response) => {
      if (request.method !== 'POST') return false;
      const key = request.headers['idempotency-key'];
      if (keys.push(key) > 1 && attempts(key) > 2) return false;
      request.resume();
      response.writeHead(503).end();
      return true;
    };
    for await (const event of open().build({ context })) if (event.type === 'warning') break;
    // Another one is refused twice, which takes longer than the first would have waited to try again.
    await finish(open().build({ context }));
    expect(attempts(keys[0])).toBe(1);
    expect(keys).toHaveLength(4);
  });

  it('cancels a build that it is left for before its answer has come', async () => {
    const arrived = Promise.withResolvers<ServerResponse>();
    let posts = 0;
    service.intercept = (request, response) => {
      if (request.method !== 'POST') return false;
      request.on('end', () => (++posts === 1 ? response.writeHead(503).end() : arrived.resolve(response))).resume();
      return true;
    };
    for await (const event of open().build({ context })) {
      if (event.type !== 'warning') continue;
      const response = await arrived.promise;
      setImmediate(() => response.writeHead(202).end('{"build_id":"late"}'));
      break;
    }
    expect(service.cancelled).toEqual(['/builds/late']);
  });

  it('cancels a build whose submission was answered after the abort, and does not wait for ever', async () => {
    const controller = new AbortController();
    service.intercept = (request, response) => {
      if (request.method !== 'POST') return false;
      request.on('end', () => {
        controller.abort(new Error('enough'));
        response.writeHead(202).end('{"build_id":"late"}');
      });
      request.resume();
      return true;
    };
    await expect(finish(open().build({ context }, { signal: controller.signal }))).rejects.toThrow('enough');
    expect(service.cancelled).toEqual(['/builds/late']);

    const second = new AbortController();
    service.intercept = (request) => {
      request.on('end', () => second.abort(new Error('enough'))).resume();
      return true;
    };
    const started = performance.now();
    await expect(finish(open().build({ context }, { signal: second.signal }))).rejects.toThrow('enough');
    expect(performance.now() - started).toBeLessThan(60_000);
  });

  it('stops sending when it is aborted in the middle of the upload', async () => {
    const controller = new AbortController();
    const endless = memoryContext([...files, { path: 'big', content: crypto.getRandomValues(new Uint8Array(65_536)) }]);
    const slow = {
      ...endless,
      reader: () =>
        async function* (entry: { sizeBytes: number }) {
          yield new Uint8Array(entry.sizeBytes);
          controller.abort(new Error('enough'));
          await expect.poll(() => service.requests).toEqual(['POST /builds']);
        },
    };
    await expect(finish(open().build({ context: slow }, { signal: controller.signal }))).rejects.toThrow('enough');
    expect(service.submissions).toEqual([]);
  });
});
