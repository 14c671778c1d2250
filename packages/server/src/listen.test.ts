import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { blobPartSource, uploadArtifact } from '@decant/dataplane';
import { createHttpClient } from '@decant/transport';

import { listen } from './listen.ts';
import { openEmbeddedServer } from './open.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'listen-test-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe('a listening server', () => {
  it('shows the first key once, and serves until it is disposed of', async () => {
    const first = await listen({ dataDirectory: directory, host: '127.0.0.1', port: 0 });
    const headers = { authorization: `Bearer ${first.firstKey}` };
    expect((await fetch(`${first.url}/v1/images`, { headers })).status).toBe(200);
    expect((await fetch(`${first.url}/v1/images`)).status).toBe(401);
    // The operator's rights are for callers in the process; no header or query gives them.
    expect((await fetch(`${first.url}/v1/keys?operator=true`, { headers })).status).toBe(403);
    await first[Symbol.asyncDispose]();
    await expect(fetch(`${first.url}/healthz`)).rejects.toThrow();
    await using second = await listen({ dataDirectory: directory, host: '127.0.0.1', port: 0 });
    expect(second.firstKey).toBeUndefined();
    expect((await fetch(`${second.url}/v1/images`, { headers })).status).toBe(200);
  });

  it('says so when the port is taken, and leaves nothing open', async () => {
    await using first = await listen({ dataDirectory: directory, host: '127.0.0.1', port: 0 });
    const port = Number(new URL(first.url).port);
    await expect(listen({ dataDirectory: directory, host: '127.0.0.1', port })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('EADDRINUSE') as string,
    });
    expect((await fetch(`${first.url}/healthz`)).status).toBe(200);
  });

  it('behind a proxy names and signs everything with the URL that clients know', async () => {
    const publicUrl = 'https://decant.example';
    await using server = await listen({ dataDirectory: directory, host: '127.0.0.1', port: 0, publicUrl });
    const reached: string[] = [];
    // What a proxy that ends TLS does to a request, its `Host` included.
    const proxy = (input: string | URL | Request, init?: RequestInit) => {
      const request = new Request(input, init);
      const { origin, pathname, search } = new URL(request.url);
      reached.push(origin);
      return fetch(new Request(`${server.url}${pathname}${search}`, request));
    };
    const client = createHttpClient({ baseUrl: publicUrl, fetch: proxy, token: server.firstKey });
    const call = async (path: string, body: unknown) => {
      const headers = { authorization: `Bearer ${server.firstKey}` };
      return (
        await proxy(`${publicUrl}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
      ).json() as any;
    };
    const build = await call('/platform/v1/sandbox-template-builds', { name: 'app', rootfsFormat: 'cas-streaming' });
    const source = blobPartSource(Uint8Array.of(1, 2, 3));
    await uploadArtifact({ client, fetch: proxy, relPath: `${build.snapshotRelPath}/x`, source });
    // To prepare, to sign, a part and its completion: whoever was sent elsewhere would have come to the port itself.
    expect(reached).toEqual(Array(4).fill(publicUrl));
    const login = await call('/v1/container-registries/default/credentials', {});
    expect(login.registry_url).toBe('decant.example/default');
  });

  it.each(['decant.example', 'ftp://decant.example', 'https://decant.example/prefix', 'https://u:p@decant.example'])(
    'has no public URL %j',
    async (publicUrl) => {
      const started = listen({ dataDirectory: directory, host: '127.0.0.1', port: 0, publicUrl });
      await expect(started).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    },
  );

  it('does not wait for a connection that says nothing', async () => {
    const server = await listen({ dataDirectory: directory, host: '127.0.0.1', port: 0 });
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
    await once(socket, 'connect');
    socket.on('error', () => undefined);
    const closed = once(socket, 'close');
    await server[Symbol.asyncDispose]();
    await closed;
  });
});

describe('an embedded server', () => {
  it('answers its own origin only, with the rights of an operator', async () => {
    await using server = await openEmbeddedServer({ dataDirectory: directory });
    expect((await server.fetch(`${server.baseUrl}/v1/keys`)).status).toBe(200);
    await expect(server.fetch('http://example.com/v1/keys')).rejects.toThrow(TypeError);
    const reason = new Error('enough');
    await expect(server.fetch(`${server.baseUrl}/healthz`, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it('says so when the directory cannot be used', async () => {
    await expect(openEmbeddedServer({ dataDirectory: '/dev/null/x' })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
  });
});
