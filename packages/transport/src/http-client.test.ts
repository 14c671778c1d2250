import { DecantError, ERROR_CODES, isErrorCode, type ErrorCode, type Fetch } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';

import { createHttpClient, retryAfterMs, type HttpClientOptions } from './http-client.ts';
import { errorOfResponse, problemResponse, toProblem } from './problem.ts';

const retry = { attempts: 3, firstDelayMs: 1, maxDelayMs: 2 };
const code = (expected: string) => expect.objectContaining({ code: expected });

/** A schema without a library, as `json` takes any. */
const numbers = {
  safeParse: (value: unknown) =>
    typeof (value as { n?: unknown } | undefined)?.n === 'number'
      ? { success: true as const, data: value as { n: number } }
      : { success: false as const, error: { message: 'n is not a number' } },
};

function scripted(...answers: (Response | Error | (() => Response | Promise<Response>))[]) {
  const requests: Request[] = [];
  const fetch: Fetch = async (input, init) => {
    requests.push(new Request(input, init));
    const answer = answers[Math.min(requests.length, answers.length) - 1]!;
    if (answer instanceof Error) throw answer;
    return typeof answer === 'function' ? answer() : answer;
  };
  return { fetch, requests };
}
/** A body of 64 MiB in pieces of 64 KiB that counts those that were taken. */
function longBody() {
  const state = { pieces: 0, cancelled: false };
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      if (++state.pieces > 1024) controller.close();
      else controller.enqueue(new Uint8Array(65_536));
    },
    cancel: () => void (state.cancelled = true),
  });
  return { state, body };
}
const clientOf = (fetch: Fetch, options: Partial<HttpClientOptions> = {}) =>
  createHttpClient({ baseUrl: 'https://api.test/base/', fetch, retry, ...options });
const ok = () => Response.json({ n: 1 });

describe('createHttpClient', () => {
  it('sends what it is told to, where it is told to', async () => {
    const { fetch, requests } = scripted(ok);
    const client = clientOf(fetch, { token: () => 'key', userAgent: 'decant/1' });
    const query = { a: 'x y&', b: 2, c: undefined, d: false };
    expect(await client.json(numbers, 'POST', '/v1/x', { body: { q: 1 }, query, headers: { 'x-h': 'y' } })).toEqual({
      n: 1,
    });
    const [request] = requests;
    expect(request!.url).toBe('https://api.test/base/v1/x?a=x+y%26&b=2&d=false');
    expect(Object.fromEntries(request!.headers)).toMatchObject({
      authorization: 'Bearer key',
      'content-type': 'application/json',
      'user-agent': 'decant/1',
      accept: 'application/json',
      'x-h': 'y',
    });
    expect(await request!.text()).toBe('{"q":1}');
    expect(request!.redirect).toBe('manual');
  });

  it('gives the token to no other origin', async () => {
    const { fetch, requests } = scripted(ok);
    const client = createHttpClient({ baseUrl: 'https://api.test', fetch, token: 'key' });
    for (const path of ['https://evil.test/', '@evil.test/', '.evil.test/', 'x', '']) {
      await expect((async () => client.request('GET', path))()).rejects.toEqual(code('USAGE'));
    }
    await client.request('GET', '//evil.test/x');
    await client.request('GET', '/\\evil.test/x');
    expect(requests.map(({ url }) => new URL(url).origin)).toEqual(['https://api.test', 'https://api.test']);
    const moved = scripted(new Response(null, { status: 307, headers: { location: 'https://evil.test/' } }));
    await expect(clientOf(moved.fetch).request('GET', '/')).rejects.toEqual(
      expect.objectContaining({ code: 'HTTP_STATUS', retryable: false }),
    );
    expect(moved.requests.length).toBe(1);
  });

  it.each([
    '',
    'api.test',
    'ftp://api.test',
    'https://user:pw@api.test',
    'https://api.test/?x=1',
    'https://api.test/#x',
  ])('refuses the base URL %j', (baseUrl) =>
    expect(() => createHttpClient({ baseUrl, fetch: scripted(ok).fetch })).toThrow(code('CONFIG_INVALID') as never),
  );

  it('carries every error of ours over the wire', async () => {
    const codes = Object.keys(ERROR_CODES).filter(
      (name): name is ErrorCode => isErrorCode(name) && name !== 'INTERNAL',
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...codes),
        fc.string({ minLength: 1 }).filter((text) => text.trim() === text && !/[^\x20-\x7e]/.test(text)),
        fc.option(fc.constantFrom('Do this.'), { nil: undefined }),
        fc.boolean(),
        async (name, message, hint, retryable) => {
          const error = new DecantError(name, message, { hint, retryable, details: { path: 'a/b', list: [1, null] } });
          const { fetch } = scripted(() => problemResponse(error));
          const caught = await clientOf(fetch, { retry: { attempts: 1 } })
            .request('GET', '/')
            .catch((e: unknown) => e);
          expect(caught).toMatchObject({ code: name, message, retryable, details: { path: 'a/b', list: [1, null] } });
          if (hint !== undefined) expect((caught as DecantError).hint).toBe(hint);
        },
      ),
    );
  });

  it.each([
    [401, 'UNAUTHORIZED', false],
    [403, 'FORBIDDEN', false],
    [404, 'NOT_FOUND', false],
    [409, 'CONFLICT', false],
    [413, 'LIMIT_EXCEEDED', false],
    [408, 'HTTP_STATUS', true],
    [429, 'HTTP_STATUS', true],
    [500, 'HTTP_STATUS', true],
    [503, 'HTTP_STATUS', true],
    [400, 'HTTP_STATUS', false],
    [422, 'HTTP_STATUS', false],
  ])('maps status %i without a code of ours to %s', async (status, expected, retryable) => {
    const bodies: [unknown, string][] = [
      [{ code: 'THEIR_CODE', detail: 'told' }, 'told'],
      [{ code: 'THEIR_CODE', message: 'told' }, 'told'],
      [{ error: 'told' }, 'told'],
      [{ error: { message: 'told' } }, 'told'],
      [[1], `The server answered with status ${status}.`],
    ];
    for (const [body, message] of bodies) {
      const { fetch } = scripted(() => Response.json(body, { status }));
      const caught = clientOf(fetch, { retry: { attempts: 1 } }).request('GET', '/');
      await expect(caught).rejects.toMatchObject({ code: expected, retryable, message, details: { status } });
    }
    const html = scripted(
      () => new Response('<html>nginx</html>', { status, headers: { 'content-type': 'text/html' } }),
    );
    await expect(clientOf(html.fetch).request('POST', '/')).rejects.toMatchObject({
      code: expected,
      message: `The server answered with status ${status}.`,
    });
  });

  it('keeps an error of a hostile server short and plain', async () => {
    const { fetch } = scripted(() =>
      Response.json({ detail: `\u001b[31mred\u0007${'x'.repeat(10_000)}` }, { status: 400 }),
    );
    const caught = (await clientOf(fetch)
      .request('GET', '/')
      .catch((e: unknown) => e)) as DecantError;
    // oxlint-disable-next-line no-control-regex -- they must not be there
    expect(caught.message).not.toMatch(/[\u0000-\u001f]/);
    expect(caught.message.length).toBeLessThan(5000);
    const endless = longBody();
    const { fetch: failing } = scripted(() => new Response(endless.body, { status: 502 }));
    await expect(clientOf(failing).request('POST', '/')).rejects.toMatchObject({
      code: 'HTTP_STATUS',
      retryable: true,
    });
    expect(endless.state).toEqual({ pieces: expect.toSatisfy((count: number) => count < 5), cancelled: true });
  });

  it('repeats what may be repeated, and nothing else', async () => {
    const busy = () => new Response('', { status: 503 });
    for (const method of ['GET', 'PUT', 'DELETE'] as const) {
      const { fetch, requests } = scripted(new TypeError('cut'), busy, ok);
      expect(await clientOf(fetch).json(numbers, method, '/')).toEqual({ n: 1 });
      expect(requests.length).toBe(3);
    }
    const post = scripted(busy, ok);
    await expect(clientOf(post.fetch).json(numbers, 'POST', '/', { body: 1 })).rejects.toEqual(code('HTTP_STATUS'));
    expect(post.requests.length).toBe(1);
    const declared = scripted(busy, ok);
    await clientOf(declared.fetch).json(numbers, 'POST', '/', { body: 1, idempotent: true });
    expect(declared.requests.length).toBe(2);
    const stream = scripted(busy, ok);
    const rawBody = new Blob(['x']).stream();
    await expect(clientOf(stream.fetch).json(numbers, 'PUT', '/', { rawBody })).rejects.toEqual(code('HTTP_STATUS'));
    expect(stream.requests.length).toBe(1);
    const final = scripted(() => new Response('', { status: 404 }));
    await expect(clientOf(final.fetch).request('GET', '/')).rejects.toEqual(code('NOT_FOUND'));
    expect(final.requests.length).toBe(1);
    const never = scripted(busy);
    await expect(clientOf(never.fetch).request('GET', '/')).rejects.toEqual(code('HTTP_STATUS'));
    expect(never.requests.length).toBe(3);
  });

  it('waits as long as the server asks', async () => {
    const headers = { 'retry-after': '1' };
    const { fetch } = scripted(() => new Response('', { status: 429, headers }), ok);
    const started = performance.now();
    await clientOf(fetch).json(numbers, 'GET', '/');
    expect(performance.now() - started).toBeGreaterThan(950);
    const forever = scripted(() => new Response('', { status: 429, headers: { 'retry-after': '999999' } }), ok);
    const abort = new AbortController();
    setTimeout(() => abort.abort(new Error('too long')), 20);
    await expect(clientOf(forever.fetch).request('GET', '/', { signal: abort.signal })).rejects.toThrow('too long');
  });

  it('reads Retry-After in seconds and as a date, and waits half a minute at the most', () => {
    using _ = vi.spyOn(Date, 'now').mockReturnValue(Date.parse('1994-11-06T08:49:30Z'));
    for (const [text, expected] of [
      ['7', 7000],
      ['Sun, 06 Nov 1994 08:49:37 GMT', 7000],
      ['Sun, 06 Nov 1994 08:49:20 GMT', 0],
      ['999999', 30_000],
      ['Mon, 07 Nov 1994 08:49:37 GMT', 30_000],
      ['soon', 0],
    ] as const) {
      expect(retryAfterMs(new Response(null, { headers: { 'retry-after': text } })), text).toBe(expected);
    }
    expect(retryAfterMs(new Response(null))).toBe(0);
  });

  it('counts the time until the headers as time of the attempt', async () => {
    let aheadMs = 0;
    const now = performance.now.bind(performance);
    using _ = vi.spyOn(performance, 'now').mockImplementation(() => now() + aheadMs);
    const late = scripted(() => {
      aheadMs += 1_000_000;
      return new Response(new ReadableStream({ pull: () => new Promise(() => undefined) }));
    });
    const client = clientOf(late.fetch, { timeoutMs: 1_000_000, retry: { attempts: 1 } });
    await expect(client.json(numbers, 'GET', '/')).rejects.toEqual(code('TIMEOUT'));
  });

  it('names the host and the reason when there is no answer, but not the URL', async () => {
    const refused = Object.assign(new TypeError('fetch failed'), {
      cause: Object.assign(new Error(), { code: 'ECONNREFUSED' }),
    });
    const { fetch } = scripted(refused);
    const caught = (await clientOf(fetch)
      .request('GET', '/p', { query: { s: 'secret' } })
      .catch((e: unknown) => e)) as DecantError;
    expect(caught).toMatchObject({ code: 'HTTP_UNREACHABLE', retryable: true });
    expect(caught.message).toBe('No answer from api.test (ECONNREFUSED).');
    expect(caught.hint).toContain('api.test');
    expect(`${caught.message}${caught.hint}${JSON.stringify(caught.details)}`).not.toContain('secret');
  });

  it('bounds the time of each attempt, even of a fetch that ignores its signal', async () => {
    const deaf: Fetch = () => new Promise(() => undefined);
    await expect(clientOf(deaf, { timeoutMs: 10 }).request('GET', '/')).rejects.toEqual(code('TIMEOUT'));
    const dripping = scripted(() => new Response(new ReadableStream({ pull: () => new Promise(() => undefined) })));
    const slow = clientOf(dripping.fetch, { timeoutMs: 20 });
    await expect(slow.json(numbers, 'GET', '/')).rejects.toEqual(code('TIMEOUT'));
    expect(dripping.requests.length).toBe(3);
  });

  it('ends with the signal’s reason, before and while it waits', async () => {
    const deaf: Fetch = () => new Promise(() => undefined);
    const signal = AbortSignal.abort(new Error('before'));
    await expect(clientOf(deaf).request('GET', '/', { signal })).rejects.toThrow('before');
    const abort = new AbortController();
    setTimeout(() => abort.abort(new Error('while')), 5);
    await expect(clientOf(deaf).request('GET', '/', { signal: abort.signal })).rejects.toThrow('while');
  });

  it('checks what it reads', async () => {
    for (const text of ['<html>', '{"n":', '\ufffe', '{"n":"1"}', '', 'null']) {
      const { fetch } = scripted(() => new Response(text));
      await expect(clientOf(fetch).json(numbers, 'GET', '/')).rejects.toEqual(code('HTTP_BODY_INVALID'));
    }
    // Not UTF-8, in a place where JSON takes any character.
    const odd = scripted(() => new Response(Buffer.from('{"n":1,"x":"\xff"}', 'latin1')));
    await expect(clientOf(odd.fetch).json(numbers, 'GET', '/')).rejects.toEqual(code('HTTP_BODY_INVALID'));
    const bytes = scripted(() => new Response(new Uint8Array(100)));
    expect((await clientOf(bytes.fetch).bytes('/', { maxBytes: 100 })).length).toBe(100);
    await expect(clientOf(bytes.fetch).bytes('/', { maxBytes: 99 })).rejects.toEqual(code('LIMIT_EXCEEDED'));
    await expect(clientOf(bytes.fetch).json(numbers, 'GET', '/', { maxBytes: 5 })).rejects.toEqual(
      code('LIMIT_EXCEEDED'),
    );
    for (const [headers, most] of [
      [{ 'content-length': '67108864' }, 1],
      [{}, 3],
    ] as const) {
      const { body, state } = longBody();
      const { fetch } = scripted(() => new Response(body, { headers }));
      await expect(clientOf(fetch).bytes('/', { maxBytes: 99 })).rejects.toEqual(code('LIMIT_EXCEEDED'));
      expect(state.pieces).toBeLessThanOrEqual(most);
      expect(state.cancelled).toBe(true);
    }
    const undeclared = scripted(() => new Response(new Blob([new Uint8Array(100)]).stream()));
    await expect(clientOf(undeclared.fetch).bytes('/', { maxBytes: 99 })).rejects.toEqual(code('LIMIT_EXCEEDED'));
  });
});

describe('errorOfResponse', () => {
  it('ends with the reason of an abort while it reads', async () => {
    const stop = new AbortController();
    const halting = new Response(new ReadableStream({ pull: () => new Promise(() => undefined) }), { status: 500 });
    const error = errorOfResponse(halting, { signal: stop.signal });
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(error).rejects.toBe(reason);
  });
});

describe('problemResponse', () => {
  it('is an RFC 9457 document without a stack or secrets', async () => {
    const signed = 'https://h/x?X-Amz-Signature=abc';
    const error = new DecantError('FORBIDDEN', `Not at ${signed}`, {
      details: { token: 'abcdefgh', url: signed, big: 1n },
    });
    const response = problemResponse(error);
    expect(response.status).toBe(403);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
    const text = await response.text();
    expect(JSON.parse(text)).toEqual({
      type: 'about:blank',
      title: 'The key does not allow this.',
      status: 403,
      code: 'FORBIDDEN',
      detail: 'Not at https://h/x?…',
      retryable: false,
      details: { token: 'abcd…', url: 'https://h/x?…', big: '1' },
    });
  });

  it('hides what a bug says', () => {
    const problem = toProblem(
      new DecantError('INTERNAL', 'ENOENT: /var/lib/secret', { details: { path: '/var' }, hint: 'x' }),
    );
    expect(JSON.stringify(problem)).not.toMatch(/var|ENOENT/);
  });

  it('asks for a key, and survives details that JSON cannot hold', () => {
    expect(problemResponse(new DecantError('UNAUTHORIZED', 'No key.')).headers.get('www-authenticate')).toBe('Bearer');
    expect(
      toProblem(new DecantError('USAGE', 'Odd.', { details: { fine: { f: () => 1, b: new Uint8Array(9) } } })).details,
    ).toEqual({ fine: {} });
  });
});
