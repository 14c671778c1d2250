import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import { createNodeFetch, type NodeFetch } from '@decant/transport/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { parseReference } from '../reference.ts';
import { makeTar } from '../testing/make-tar.ts';
import { serve, type TestServer } from '../testing/serve.ts';
import { failure, gather } from '../testing/streams.ts';
import { openRegistryImage, type OpenRegistryImageOptions } from './pull.ts';

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const LAYER = makeTar([{ path: 'a', data: Buffer.alloc(200_000, 'abc') }]);
const CONFIG = Buffer.from(
  JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [digestOf(LAYER)] } }),
);
const MANIFEST = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(CONFIG), size: CONFIG.length },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digestOf(LAYER), size: LAYER.length }],
  }),
);

type Listener = (request: IncomingMessage, response: ServerResponse) => void;
let http: NodeFetch;
let servers: TestServer[];
beforeEach(() => {
  http = createNodeFetch();
  servers = [];
});
afterEach(async () => {
  await http.close();
  for (const server of servers) await server[Symbol.asyncDispose]();
});

async function start(listener: Listener): Promise<TestServer> {
  const server = await serve(listener);
  servers.push(server);
  return server;
}

/** A registry that is as it should be but for what `special` answers, by the end of the path. */
function registry(special: Record<string, Listener>): Promise<TestServer> {
  return start((request, response) => {
    const path = new URL(request.url!, 'http://h').pathname;
    const own = Object.entries(special).find(([end]) => path.endsWith(end));
    if (own !== undefined) own[1](request, response);
    else if (path.endsWith('/manifests/v1')) response.setHeader('content-type', typeOf(MANIFEST)).end(MANIFEST);
    else if (path.endsWith(digestOf(CONFIG))) response.end(CONFIG);
    else if (path.endsWith(digestOf(LAYER))) response.end(LAYER);
    else response.writeHead(404).end();
  });
}

const typeOf = (document: Buffer) => (JSON.parse(document.toString()) as { mediaType: string }).mediaType;

async function layerOf({ host }: TestServer, options: Partial<OpenRegistryImageOptions> = {}): Promise<Buffer> {
  await using image = await openRegistryImage(parseReference(`${host}/app:v1`), { fetch: http.fetch, ...options });
  return gather(image.layers[0]!.open());
}

const password = async () => ({ kind: 'password', username: 'me', password: 'secret' }) as const;

describe('the client and registries that are broken or hostile', () => {
  it('resumes a layer that is cut again and again, with ranges or without', async () => {
    for (const ranges of [true, false]) {
      const asked: (string | undefined)[] = [];
      const cutting: Listener = (request, response) => {
        asked.push(request.headers.range);
        const from = ranges ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0) : 0;
        response.writeHead(from > 0 ? 206 : 200, {
          'content-length': LAYER.length - from,
          ...(from > 0 ? { 'content-range': `bytes ${from}-${LAYER.length - 1}/${LAYER.length}` } : {}),
        });
        if (asked.length === 3) response.end(LAYER.subarray(from));
        else response.write(LAYER.subarray(from, from + 50_000 * asked.length), () => response.destroy());
      };
      const bytes = await layerOf(await registry({ [digestOf(LAYER)]: cutting }));
      expect(digestOf(bytes)).toBe(digestOf(LAYER));
      expect(asked).toHaveLength(3);
      expect(asked.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range ?? ''))).toBe(true);
    }
  });

  it('waits as long as a busy registry says, everything that is asked of it', async () => {
    const times: number[] = [];
    const busy: Listener = (_, response) => {
      times.push(performance.now());
      const status = [429, 503][times.length - 1];
      if (status === undefined) response.end(LAYER);
      else response.writeHead(status, { 'retry-after': '1' }).end();
    };
    expect(await layerOf(await registry({ [digestOf(LAYER)]: busy }))).toEqual(LAYER);
    expect(times).toHaveLength(3);
    expect(times[1]! - times[0]!).toBeGreaterThan(950);
    expect(times[2]! - times[1]!).toBeGreaterThan(950);
  });

  it('refuses a manifest with a member twice, which others may read in another way', async () => {
    const twice = Buffer.from(MANIFEST.toString().replace(/\}$/, ',"layers":[]}'));
    const type = typeOf(MANIFEST);
    const ambiguous = await registry({
      '/manifests/v1': (_, response) => response.setHeader('content-type', type).end(twice),
    });
    await expect(layerOf(ambiguous)).rejects.toMatchObject({
      code: 'OCI_INVALID',
      message: expect.stringContaining('"layers" twice') as string,
    });
  });

  it('gives a layer up that never gets on', async () => {
    let asked = 0;
    const cutting: Listener = (_, response) => {
      asked++;
      response.writeHead(200, { 'content-length': LAYER.length }).write('x', () => response.destroy());
    };
    expect(await failure(layerOf(await registry({ [digestOf(LAYER)]: cutting })))).toBe('HTTP_UNREACHABLE');
    expect(asked).toBe(5);
  });

  it.each([
    ['other bytes', (b: Buffer) => Buffer.alloc(b.length, 'z'), 'OCI_DIGEST_MISMATCH'],
    ['too many bytes', (b: Buffer) => Buffer.concat([b, b]), 'OCI_DIGEST_MISMATCH'],
    ['too few bytes', (b: Buffer) => b.subarray(1), 'HTTP_UNREACHABLE'],
    ['nothing', () => Buffer.alloc(0), 'HTTP_UNREACHABLE'],
  ])('refuses blobs of %s', async (_, change, code) => {
    for (const blob of code === 'HTTP_UNREACHABLE' ? [LAYER] : [LAYER, CONFIG]) {
      const wrong: Listener = (__, response) => response.end(change(blob));
      expect(await failure(layerOf(await registry({ [digestOf(blob)]: wrong })))).toBe(code);
    }
  });

  it('refuses a range that was not asked for', async () => {
    let asked = 0;
    const wrong: Listener = (request, response) => {
      if (asked++ === 0)
        response
          .writeHead(200, { 'content-length': LAYER.length })
          .write(LAYER.subarray(0, 1000), () => response.destroy());
      else response.writeHead(206, { 'content-range': `bytes 0-${LAYER.length - 1}/${LAYER.length}` }).end(LAYER);
      request.resume();
    };
    expect(await failure(layerOf(await registry({ [digestOf(LAYER)]: wrong })))).toBe('HTTP_BODY_INVALID');
  });

  it('refuses manifests that are huge, endless, changed or of another kind', async () => {
    const endless: Listener = (_, response) => {
      const more = () => {
        if (!response.destroyed) response.write(Buffer.alloc(65_536, ' '), more);
      };
      more();
    };
    expect(await failure(layerOf(await registry({ '/v1': endless })))).toBe('LIMIT_EXCEEDED');
    const declared: Listener = (_, response) => response.writeHead(200, { 'content-length': 10 ** 12 }).flushHeaders();
    expect(await failure(layerOf(await registry({ '/v1': declared })))).toBe('LIMIT_EXCEEDED');
    const changed: Listener = (_, response) =>
      response
        .setHeader('docker-content-digest', digestOf(LAYER))
        .setHeader('content-type', typeOf(MANIFEST))
        .end(MANIFEST);
    expect(await failure(layerOf(await registry({ '/v1': changed })))).toBe('OCI_DIGEST_MISMATCH');
    const old: Listener = (_, response) => response.end('{"schemaVersion":1,"fsLayers":[]}');
    expect(await failure(layerOf(await registry({ '/v1': old })))).toBe('OCI_UNSUPPORTED');
    const twice: Listener = (_, response) =>
      response.setHeader('content-type', 'application/vnd.docker.distribution.manifest.v2+json').end(MANIFEST);
    expect(await failure(layerOf(await registry({ '/v1': twice })))).toBe('OCI_INVALID');
    const { host } = await registry({ [`manifests/${digestOf(LAYER)}`]: (_, response) => response.end(MANIFEST) });
    const byDigest = openRegistryImage(parseReference(`${host}/app@${digestOf(LAYER)}`), { fetch: http.fetch });
    expect(await failure(byDigest)).toBe('OCI_DIGEST_MISMATCH');
  });

  it('tells a manifest by what it holds where neither it nor the server names its type, and says what an old one is', async () => {
    const { mediaType: _, ...nameless } = JSON.parse(MANIFEST.toString()) as Record<string, unknown>;
    const bytes = Buffer.from(JSON.stringify(nameless));
    const index = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        manifests: [{ mediaType: typeOf(MANIFEST), digest: digestOf(bytes), size: bytes.length }],
      }),
    );
    const answer =
      (body: Buffer | string): Listener =>
      (_request, response) =>
        response.setHeader('content-type', 'application/json').end(body);
    for (const top of [bytes, index]) {
      const server = await registry({ '/v1': answer(top), [digestOf(bytes)]: answer(bytes) });
      expect(await layerOf(server)).toEqual(LAYER);
    }
    for (const body of ['{"schemaVersion":2}', 'null', '[]', '{"schemaVersion":2,"config":null}', '<html>']) {
      expect(await failure(layerOf(await registry({ '/v1': answer(body) })))).toBe('OCI_UNSUPPORTED');
    }
    await expect(layerOf(await registry({ '/v1': answer('{"schemaVersion":1,"fsLayers":[]}') }))).rejects.toMatchObject(
      { code: 'OCI_UNSUPPORTED', hint: expect.stringContaining('schema 1') as string },
    );
  });

  it('follows a redirect to another host without the credentials, and an endless one not for long', async () => {
    let seen: IncomingMessage['headers'] | undefined;
    const elsewhere = await start((request, response) => {
      seen = request.headers;
      response.end(LAYER);
    });
    let hops = 0;
    const server = await registry({
      '/v1': (request, response) => {
        if (request.headers.authorization === undefined) {
          response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
        } else response.setHeader('content-type', typeOf(MANIFEST)).end(MANIFEST);
      },
      [digestOf(LAYER)]: (request, response) => {
        expect(request.headers.authorization).toMatch(/^Basic /);
        response.writeHead(307, { location: `http://${elsewhere.host}/x` }).end();
      },
    });
    expect(digestOf(await layerOf(server, { credentials: password }))).toBe(digestOf(LAYER));
    expect(seen).toBeDefined();
    expect(seen!.authorization).toBeUndefined();
    const loop = await registry({
      [digestOf(LAYER)]: (request, response) => {
        hops++;
        response.writeHead(302, { location: request.url! }).end();
      },
    });
    expect(await failure(layerOf(loop))).toBe('HTTP_BODY_INVALID');
    expect(hops).toBe(6);
  });

  it.each(['http://203.0.113.1/x', 'file:///etc/passwd', 'ftp://h/x', 'http://', 'javascript:0'])(
    'is not sent to %s, neither for a blob nor for a token',
    async (target) => {
      const redirect: Listener = (_, response) => response.writeHead(302, { location: target }).end();
      expect(await failure(layerOf(await registry({ [digestOf(LAYER)]: redirect })))).toBe('HTTP_BODY_INVALID');
      const ask: Listener = (_, response) =>
        response.writeHead(401, { 'www-authenticate': `Bearer realm="${target}",service="s"` }).end();
      expect(await failure(layerOf(await registry({ '/v1': ask }), { credentials: password }))).toBe(
        'HTTP_BODY_INVALID',
      );
    },
  );

  it('does not let a remote registry send it to this machine', async () => {
    const seen: string[] = [];
    const fetch = async (input: string | URL | Request): Promise<Response> => {
      seen.push(new Request(input).url);
      const realm = 'Bearer realm="http://127.0.0.1:1/token",service="s"';
      return new Response(null, { status: 401, headers: { 'www-authenticate': realm } });
    };
    const open = openRegistryImage(parseReference('registry.example/app:v1'), { fetch, credentials: password });
    expect(await failure(open)).toBe('HTTP_BODY_INVALID');
    expect(seen).toEqual(['https://registry.example/v2/app/manifests/v1']);
  });

  it('gets a token for what it does, with a password or a refresh token, and only once', async () => {
    const calls: string[] = [];
    const issuer = await start((request, response) => {
      let body = '';
      request.on('data', (piece: Buffer) => (body += piece.toString()));
      request.on('end', () => {
        calls.push(`${request.method} ${request.headers.authorization ?? ''} ${request.url} ${body}`);
        response.end(JSON.stringify({ access_token: 'tok', expires_in: 300 }));
      });
    });
    const guard =
      (answer: Buffer): Listener =>
      (request, response) => {
        if (request.headers.authorization === 'Bearer tok')
          response.setHeader('content-type', typeOf(MANIFEST)).end(answer);
        else {
          const challenge = `Bearer realm="http://${issuer.host}/token?x=1",service="reg, \\"q\\"",scope="repository:app:pull"`;
          response.writeHead(401, { 'www-authenticate': challenge }).end();
        }
      };
    const special = { '/v1': guard(MANIFEST), [digestOf(CONFIG)]: guard(CONFIG), [digestOf(LAYER)]: guard(LAYER) };
    const server = await registry(special);
    await layerOf(server, { credentials: password });
    await layerOf(server, { credentials: async () => ({ kind: 'refresh-token', refreshToken: 'r&1' }) });
    await layerOf(server);
    const query = 'x=1&service=reg%2C+%22q%22&scope=repository%3Aapp%3Apull';
    expect(calls).toEqual([
      `GET Basic ${Buffer.from('me:secret').toString('base64')} /token?${query} `,
      `POST  /token?x=1 grant_type=refresh_token&client_id=decant&scope=repository%3Aapp%3Apull&refresh_token=r%261&service=reg%2C+%22q%22`,
      `GET  /token?${query} `,
    ]);
  });

  it('shows what a registry says, cut and without control characters', async () => {
    const errors = [{ code: 'DENIED', message: `\u001b[31mno\n${'x'.repeat(500)}` }];
    const denied: Listener = (_, response) => response.writeHead(403).end(JSON.stringify({ errors }));
    const server = await registry({ '/v1': denied });
    const error = await layerOf(server).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'FORBIDDEN', message: expect.stringContaining('DENIED:  [31mno xxx') });
    expect((error as Error).message.length).toBeLessThan(400);
  });

  it('stops when it is aborted', async () => {
    const controller = new AbortController();
    const stuck: Listener = (_, response) => {
      response.writeHead(200, { 'content-length': LAYER.length }).write('x');
      setTimeout(() => controller.abort(new Error('enough')), 20);
    };
    const server = await registry({ [digestOf(LAYER)]: stuck });
    await using image = await openRegistryImage(parseReference(`${server.host}/app:v1`), { fetch: http.fetch });
    await expect(gather(image.layers[0]!.open({ signal: controller.signal }))).rejects.toThrow('enough');
  });
});
