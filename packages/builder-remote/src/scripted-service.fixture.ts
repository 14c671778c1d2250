import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';

/** What one submission carried. */
export interface Submitted {
  readonly fields: Readonly<Record<string, string>>;
  /** The archive after gunzip; undefined when there was none. */
  readonly tar: Buffer | undefined;
  readonly key: string | undefined;
}

/**
 * The wire side of an image-builder, to be cut, silenced and misled at will over real TCP. It builds nothing: builds
 * are tried on the real service.
 */
export interface ScriptedService extends AsyncDisposable {
  readonly url: string;
  readonly submissions: Submitted[];
  readonly cancelled: string[];
  /** Requests as `METHOD path`, in order. */
  readonly requests: string[];
  /** Answers instead of the service when it returns true. */
  intercept: (request: IncomingMessage, response: ServerResponse) => boolean;
  /** Answers one connection to the log, behind the line of `Last-Event-ID`. */
  log: (after: number, response: ServerResponse, connection: number) => void;
  status: () => object;
  /** Stops listening and cuts everything, as a server that is killed. */
  kill(): void;
}

export const SUCCEEDED = {
  build_id: 'b-1',
  status: 'succeeded',
  image_name: 'app',
  image_ref: 'registry.test/ns/app@sha256:00',
  architecture: 'arm64',
  nydus_convert: true,
  cache_key: 'app',
  position: null,
  attempt: 1,
  engine: 'a script',
  log_lines: 1,
  error: null,
  created_at: '2026-01-01T00:00:00Z',
  started_at: null,
  finished_at: null,
};

export async function scriptedService(): Promise<ScriptedService> {
  const submissions: Submitted[] = [];
  const cancelled: string[] = [];
  const requests: string[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    void answer(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const service: ScriptedService = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    submissions,
    cancelled,
    requests,
    intercept: () => false,
    log: (_, response) => response.end('data: {"done": true}\n\n'),
    status: () => SUCCEEDED,
    kill() {
      server.close();
      server.closeAllConnections();
    },
    async [Symbol.asyncDispose]() {
      service.kill();
    },
  };
  const json = (response: ServerResponse, status: number, body: unknown) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '' } = request;
    requests.push(`${method} ${url}`);
    if (service.intercept(request, response)) return;
    if (method === 'POST' && url === '/builds') {
      submissions.push(await read(request));
      json(response, 202, { build_id: 'b-1' });
    } else if (method === 'GET' && url === '/builds/b-1/logs') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.flushHeaders();
      service.log(Number(request.headers['last-event-id'] ?? 0), response, ++connections);
    } else if (method === 'GET' && url === '/builds/b-1') json(response, 200, service.status());
    else if (method === 'DELETE') {
      cancelled.push(url);
      response.writeHead(204).end();
    } else json(response, 404, { code: 'NOT_FOUND', message: 'nothing here', errors: [] });
  }
  return service;
}

async function read(request: IncomingMessage): Promise<Submitted> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  const form = await new Response(Buffer.concat(pieces), {
    headers: { 'content-type': request.headers['content-type'] ?? '' },
  }).formData();
  const fields: Record<string, string> = {};
  let tar: Buffer | undefined;
  for (const [name, value] of form) {
    if (typeof value === 'string') fields[name] = value;
    else tar = gunzipSync(Buffer.from(await value.arrayBuffer()));
  }
  return { fields, tar, key: request.headers['idempotency-key'] as string | undefined };
}
