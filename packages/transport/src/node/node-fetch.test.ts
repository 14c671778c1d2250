import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { createHttpClient } from '../http-client.ts';
import { createNodeFetch } from './node-fetch.ts';

describe('createNodeFetch', () => {
  let server: Server;
  let most: number;
  beforeEach(() => {
    let running = 0;
    most = 0;
    server = createServer((request, response) => {
      most = Math.max(most, ++running);
      const pieces: Buffer[] = [];
      request.on('data', (piece: Buffer) => pieces.push(piece));
      request.on('end', () => {
        setTimeout(() => {
          running--;
          const { method, url, headers } = request;
          response.setHeader('content-type', 'application/json');
          response.end(JSON.stringify({ method, url, headers, body: Buffer.concat(pieces).toString() }));
        }, 5);
      });
    });
  });
  afterEach(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const listen = async (): Promise<string> => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  };
  type Echo = { method: string; url: string; headers: Record<string, string>; body: string };

  it('takes the bodies and requests of the runtime', async () => {
    const base = await listen();
    await using http = createNodeFetch();
    const { fetch } = http;
    const echo = async (...args: Parameters<typeof fetch>) => (await (await fetch(...args)).json()) as Echo;
    expect(await echo(`${base}/a`, { method: 'PUT', body: 'text' })).toMatchObject({
      method: 'PUT',
      url: '/a',
      body: 'text',
    });
    expect((await echo(`${base}/a`, { method: 'PUT', body: new Uint8Array([65]) })).body).toBe('A');
    const blob = await echo(`${base}/a`, { method: 'PUT', body: new Blob(['blob']) });
    expect([blob.body, blob.headers['content-length']]).toEqual(['blob', '4']);
    const stream = new Blob(['stream']).stream();
    expect((await echo(`${base}/a`, { method: 'PUT', body: stream, duplex: 'half' })).body).toBe('stream');
    const headers = new Headers({ 'x-own': 'y' });
    const request = new Request(`${base}/b`, { method: 'POST', body: 'in a request', headers });
    expect(await echo(request)).toMatchObject({
      method: 'POST',
      url: '/b',
      body: 'in a request',
      headers: { 'x-own': 'y' },
    });
    const form = new FormData();
    form.set('field', 'value');
    form.set('file', new Blob(['bytes']), 'name.txt');
    const sent = await echo(`${base}/c`, { method: 'POST', body: form, headers });
    expect(sent.headers['content-type']).toMatch(/^multipart\/form-data; boundary=/);
    expect(sent.body).toContain('filename="name.txt"');
    expect(sent.body).toContain('value');
  });

  it('heeds the signal and the redirect mode of a request of the runtime', async () => {
    const base = await listen();
    await using http = createNodeFetch();
    const stop = new AbortController();
    const reason = new Error('enough');
    server.removeAllListeners('request');
    server.on('request', (request, response) => {
      if (request.url === '/moved') response.writeHead(302, { location: `${base}/silent` }).end();
      else stop.abort(reason);
    });
    const moved = await http.fetch(new Request(`${base}/moved`, { redirect: 'manual' }));
    expect([moved.status, moved.headers.get('location')]).toEqual([302, `${base}/silent`]);
    await expect(http.fetch(new Request(`${base}/silent`, { signal: stop.signal }))).rejects.toBe(reason);
  });

  it('opens no more connections than it may', async () => {
    const base = await listen();
    await using http = createNodeFetch({ connections: 2 });
    await Promise.all(Array.from({ length: 8 }, async () => (await http.fetch(`${base}/`)).text()));
    expect(most).toBe(2);
  });

  it('closes even when an answer was left unread', async () => {
    const base = await listen();
    server.removeAllListeners('request');
    server.on('request', (_, response) => response.write('the beginning of an endless answer'));
    const http = createNodeFetch();
    const response = await http.fetch(`${base}/`);
    await http.close();
    await expect(response.text()).rejects.toThrow();
  });

  it('goes through a Unix socket', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'decant-socket-'));
    const socketPath = join(directory, 's');
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    await using http = createNodeFetch({ socketPath });
    const answer = (await (await http.fetch('http://decant.internal/x')).json()) as Echo;
    expect(answer).toMatchObject({ url: '/x', headers: { host: 'decant.internal' } });
    await rm(directory, { recursive: true });
  });

  it('does not follow redirects for the client, and tells who did not answer', async () => {
    await using http = createNodeFetch({ connectTimeoutMs: 20_000 });
    const base = await listen();
    server.removeAllListeners('request');
    server.on('request', (_, response) => response.writeHead(302, { location: 'http://evil.test/' }).end());
    const client = createHttpClient({ baseUrl: base, fetch: http.fetch, token: 'key', retry: { attempts: 1 } });
    await expect(client.request('GET', '/')).rejects.toMatchObject({ code: 'HTTP_STATUS', details: { status: 302 } });
    // The port of this end of a connection: nobody listens on it, nor can another program begin to.
    const taken = connect((server.address() as AddressInfo).port, '127.0.0.1');
    await once(taken, 'connect');
    const host = `127.0.0.1:${taken.localPort}`;
    const nobody = createHttpClient({ baseUrl: `http://${host}`, fetch: http.fetch, retry: { attempts: 1 } });
    await expect(nobody.request('GET', '/')).rejects.toMatchObject({
      code: 'HTTP_UNREACHABLE',
      message: `No answer from ${host} (ECONNREFUSED).`,
    });
    taken.destroy();
  });
});
