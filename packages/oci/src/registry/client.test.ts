import type { Fetch } from '@decant/core';
import { afterEach, describe, expect, it, vi } from 'vitest';

import type { RegistryCredentials } from '../docker-config.ts';
import { failure } from '../testing/streams.ts';
import { RepositoryClient } from './client.ts';
import { allowedTarget, originOf } from './origin.ts';

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly authorization: string | null;
}

/** A network where every host answers as told. */
function network(answer: (request: Request) => Response): { fetch: Fetch; seen: Seen[] } {
  const seen: Seen[] = [];
  const fetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const request = new Request(input, init);
    seen.push({ method: request.method, url: request.url, authorization: request.headers.get('authorization') });
    return answer(request);
  };
  return { fetch, seen };
}

const password = async (): Promise<RegistryCredentials> => ({ kind: 'password', username: 'me', password: 'secret' });
const challenge = (realm = 'https://auth.example/token') =>
  new Response(null, { status: 401, headers: { 'www-authenticate': `Bearer realm="${realm}",service="s"` } });

function clientOf(fetch: Fetch, options: Partial<ConstructorParameters<typeof RepositoryClient>[0]> = {}) {
  const reference = { registry: 'registry.example', repository: 'app' };
  return new RepositoryClient({ reference, fetch, credentials: password, access: 'push', ...options });
}

const get = (client: RepositoryClient) =>
  client.request('GET', client.url('blobs/x'), { expect: [200], what: 'the blob' });

afterEach(() => void vi.restoreAllMocks());

describe('a client of a repository', () => {
  it('sends what it writes nowhere else, whatever the registry says', async () => {
    for (const status of [301, 302, 307, 308]) {
      const { fetch, seen } = network(
        () => new Response(null, { status, headers: { location: 'https://other.example/' } }),
      );
      const client = clientOf(fetch);
      for (const method of ['PUT', 'POST', 'PATCH', 'DELETE'] as const) {
        const sent = client.request(method, client.url('blobs/uploads/'), { expect: [201], what: 'an upload' });
        expect(await failure(sent)).toBe('HTTP_STATUS');
      }
      expect(seen).toHaveLength(4);
    }
  });

  it('sends no credentials to another host that an upload goes on at', async () => {
    const { fetch, seen } = network((request) => {
      if (request.url.startsWith('https://store.example/')) return new Response(null, { status: 201 });
      if (request.headers.get('authorization') === null) {
        return new Response(null, { status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } });
      }
      return new Response(null, { status: 202, headers: { location: 'https://me:pass@store.example/up?id=1#x' } });
    });
    const client = clientOf(fetch);
    const start = client.url('blobs/uploads/');
    const begun = await client.request('POST', start, { expect: [202], what: 'an upload' });
    const place = client.locationOf(begun, start, 'an upload');
    expect(place.href).toBe('https://store.example/up?id=1');
    await client.request('PUT', place, { expect: [201], what: 'an upload' });
    expect(seen.map(({ authorization }) => authorization?.split(' ')[0])).toEqual([undefined, 'Basic', undefined]);
    expect(() => client.locationOf(new Response(null), start, 'an upload')).toThrow(
      expect.objectContaining({ code: 'HTTP_BODY_INVALID' }),
    );
  });

  it('asks for all that it is to do, and for another token when the one it has is over', async () => {
    let now = 0;
    vi.spyOn(performance, 'now').mockImplementation(() => now);
    let tokens = 0;
    const { fetch, seen } = network((request) => {
      if (request.url.startsWith('https://auth.example/')) {
        return Response.json({ token: `t${++tokens}`, expires_in: 100 });
      }
      return request.headers.get('authorization') === `Bearer t${tokens}` ? new Response('x') : challenge();
    });
    const client = clientOf(fetch, { mountFrom: 'base' });
    await get(client);
    expect(new URL(seen[1]!.url).searchParams.getAll('scope')).toEqual([
      'repository:app:pull,push',
      'repository:base:pull',
    ]);
    now = 89_000;
    await get(client);
    expect(seen).toHaveLength(4);
    now = 91_000;
    await get(client);
    // Nothing was sent with the old one.
    expect(seen.slice(4).map(({ authorization }) => authorization?.slice(0, 9))).toEqual([
      undefined,
      'Basic bWU',
      'Bearer t2',
    ]);
  });

  it.each([
    [() => new Response(null, { status: 401 }), 'UNAUTHORIZED'],
    [() => new Response(null, { status: 403 }), 'UNAUTHORIZED'],
    [() => new Response(null, { status: 400 }), 'UNAUTHORIZED'],
    [() => new Response(null, { status: 500 }), 'HTTP_STATUS'],
    [() => Response.json({}), 'HTTP_BODY_INVALID'],
    [() => Response.json({ token: 'a\r\nx-evil: 1' }), 'HTTP_BODY_INVALID'],
    [() => Response.json({ token: 'a b' }), 'HTTP_BODY_INVALID'],
    [() => new Response('<html>'), 'HTTP_BODY_INVALID'],
  ])('says what is wrong when it gets no token (%#)', async (answer, code) => {
    const { fetch } = network((request) => (request.url.startsWith('https://auth.') ? answer() : challenge()));
    expect(await failure(get(clientOf(fetch)))).toBe(code);
  });

  it('asks for credentials again when they could not be had', async () => {
    const { fetch } = network((request) => {
      if (request.url.startsWith('https://auth.')) return Response.json({ token: 't' });
      return request.headers.get('authorization') === 'Bearer t' ? new Response('x') : challenge();
    });
    let asked = 0;
    const credentials = async () => {
      if (++asked === 1) throw new Error('the helper failed');
      return password();
    };
    const client = clientOf(fetch, { credentials });
    await expect(get(client)).rejects.toThrow('the helper failed');
    expect((await get(client)).status).toBe(200);
  });
});

describe('where a registry may send to', () => {
  const remote = new URL('https://registry.example');
  const local = new URL('http://127.0.0.1:5000');

  it.each([
    [remote, 'https://cdn.example/x'],
    [remote, '/v2/x'],
    [local, 'http://localhost:7000/x'],
    [local, 'http://127.3.2.1/x'],
    [local, 'https://cdn.example/x'],
    [local, 'https://localhost:8443/x'],
    [new URL('https://localhost:8443'), '/y'],
  ])('%s: %s', (base, target) => {
    expect(allowedTarget(target, base, 'it').href).toBe(new URL(target, base).href);
  });

  it.each([
    [remote, 'http://registry.example/x'],
    [remote, 'https://localhost/x'],
    [remote, 'https://127.0.0.1/x'],
    [remote, 'https://[::1]/x'],
    [remote, 'http://127.0.0.1/x'],
    [local, 'http://registry.example/x'],
    [local, 'ftp://localhost/x'],
    [local, 'http://127.evil.example/x'],
    [local, 'http://localhost.evil.example/x'],
  ])('%s: not to %s', (base, target) => {
    expect(() => allowedTarget(target, base, 'it')).toThrow(expect.objectContaining({ code: 'HTTP_BODY_INVALID' }));
  });

  it('is asked on https, but on this machine', () => {
    const origins = ['registry.example', '127.evil.example', 'localhost.evil.example', 'docker.io'].map(
      (name) => originOf(name).origin,
    );
    expect(origins).toEqual([
      'https://registry.example',
      'https://127.evil.example',
      'https://localhost.evil.example',
      'https://registry-1.docker.io',
    ]);
    expect(['localhost:5000', '127.0.0.1', '[::1]:80'].map((name) => originOf(name).origin)).toEqual([
      'http://localhost:5000',
      'http://127.0.0.1',
      'http://[::1]',
    ]);
  });
});
