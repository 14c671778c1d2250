import { DecantError, retry, sleep, type Fetch, type RetryOptions } from '@decant/core';

import { errorOfResponse } from './problem.ts';
import { DEFAULT_TIMEOUT_MS, readBody, send } from './send.ts';

/** Longest wait that a server's Retry-After may ask for, in milliseconds. */
export const MAX_RETRY_AFTER_MS = 30_000;
/** Most bytes of a JSON answer, unless the call says otherwise. */
export const DEFAULT_MAX_JSON_BYTES = 16 * 1024 * 1024;

export type HttpMethod = 'GET' | 'HEAD' | 'PUT' | 'POST' | 'PATCH' | 'DELETE';

/** What checks the body of an answer: every zod schema is one. */
export interface BodySchema<T> {
  safeParse(value: unknown): { success: true; data: T } | { success: false; error: { message: string } };
}

export interface HttpClientOptions {
  /** Address of the service; a path in it is put before every path. */
  readonly baseUrl: string;
  readonly fetch: Fetch;
  /** Sent as a bearer token, to this origin only. A function is asked before every attempt. */
  readonly token?: string | (() => string) | undefined;
  /** Value of the User-Agent header, where the platform lets it be set. */
  readonly userAgent?: string | undefined;
  /** How often and how patiently idempotent requests are repeated. */
  readonly retry?: Pick<RetryOptions, 'attempts' | 'firstDelayMs' | 'maxDelayMs'> | undefined;
  /** Milliseconds one attempt may take; default 60,000. For `request`, until the headers of the answer. */
  readonly timeoutMs?: number | undefined;
}

export interface RequestOptions {
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Sent as it is, instead of `body`. A stream can be sent once, so such a request is never repeated. */
  readonly rawBody?: NonNullable<RequestInit['body']> | undefined;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>> | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Whether the request may be repeated; default: GET, HEAD, PUT and DELETE may. */
  readonly idempotent?: boolean | undefined;
  /** Instead of the client's. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface HttpClient {
  readonly baseUrl: string;
  /**
   * A call that answers JSON (or nothing, which the schema then sees as undefined).
   * @throws what the server's problem document says, else UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT,
   * LIMIT_EXCEEDED or HTTP_STATUS by status; HTTP_UNREACHABLE, TIMEOUT, HTTP_BODY_INVALID.
   */
  json<T>(
    schema: BodySchema<T>,
    method: HttpMethod,
    path: string,
    options?: RequestOptions & { readonly maxBytes?: number | undefined },
  ): Promise<T>;
  /** A call whose answer, which is within 200 to 299, the caller reads. Errors as for `json`. */
  request(method: HttpMethod, path: string, options?: RequestOptions): Promise<Response>;
  /** GET of at most `maxBytes` bytes. @throws LIMIT_EXCEEDED when there are more; else as `json`. */
  bytes(path: string, options: RequestOptions & { readonly maxBytes: number }): Promise<Uint8Array<ArrayBuffer>>;
}

/** A client of one service. @throws CONFIG_INVALID when the base URL is not one, or carries credentials. */
export function createHttpClient(options: HttpClientOptions): HttpClient {
  const base = parseBase(options.baseUrl);

  const call = <T>(
    method: HttpMethod,
    path: string,
    request: RequestOptions,
    accept: string,
    finish: (response: Response, timeoutMs: number) => Promise<T>,
  ): Promise<T> => {
    const { signal, timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS } = request;
    const url = urlOf(base, path, request.query);
    const replayable = !(request.rawBody instanceof ReadableStream);
    const repeat = replayable && (request.idempotent ?? (method !== 'POST' && method !== 'PATCH'));
    let notBefore = 0;
    return retry(
      async () => {
        const wait = notBefore - Date.now();
        if (wait > 0) await sleep(wait, signal);
        const started = performance.now();
        const init = initOf(options, method, request, accept);
        const response = await send(options.fetch, url, init, { timeoutMs, signal });
        const left = Math.max(1, timeoutMs - (performance.now() - started));
        if (response.ok) return await finish(response, left);
        notBefore = Date.now() + retryAfterMs(response);
        throw await errorOfResponse(response, { timeoutMs: left, signal });
      },
      { ...options.retry, ...(repeat ? {} : { attempts: 1 }), signal },
    );
  };

  return {
    baseUrl: base,
    request: (method, path, request = {}) =>
      call(method, path, request, '*/*', (response) => Promise.resolve(response)),
    bytes: (path, request) =>
      call('GET', path, request, '*/*', (response, timeoutMs) =>
        readBody(response, request.maxBytes, { timeoutMs, signal: request.signal }),
      ),
    json: (schema, method, path, request = {}) =>
      call(method, path, request, 'application/json', async (response, timeoutMs) => {
        const { maxBytes = DEFAULT_MAX_JSON_BYTES, signal } = request;
        return parseJson(schema, response, await readBody(response, maxBytes, { timeoutMs, signal }));
      }),
  };
}

function parseBase(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const usable = url !== undefined && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '';
  if (!usable || url.search !== '' || url.hash !== '') {
    throw new DecantError('CONFIG_INVALID', 'The address of the server is not a plain http or https URL.', {
      hint: 'Write it as https://host or https://host/path, without user, query or fragment.',
    });
  }
  return url.origin + url.pathname.replace(/\/+$/, '');
}

function urlOf(base: string, path: string, query: RequestOptions['query']): string {
  const url = path.startsWith('/') ? new URL(base + path) : undefined;
  // The token goes wherever this points, so the path must not be able to lead elsewhere.
  if (url === undefined || url.origin !== new URL(base).origin || url.username !== '') {
    throw new DecantError('USAGE', 'A request path must start with a slash and stay on its server.');
  }
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) url.searchParams.append(name, String(value));
  }
  return url.href;
}

function initOf(client: HttpClientOptions, method: HttpMethod, request: RequestOptions, accept: string) {
  const headers = new Headers({ accept, ...request.headers });
  const token = typeof client.token === 'function' ? client.token() : client.token;
  if (token !== undefined) headers.set('authorization', `Bearer ${token}`);
  if (client.userAgent !== undefined) headers.set('user-agent', client.userAgent);
  const init: Omit<RequestInit, 'signal'> & { duplex?: 'half' } = { method, headers };
  if (request.rawBody !== undefined) {
    init.body = request.rawBody;
    if (request.rawBody instanceof ReadableStream) init.duplex = 'half';
  } else if (request.body !== undefined) {
    headers.set('content-type', 'application/json');
    init.body = JSON.stringify(request.body);
  }
  return init;
}

/** Milliseconds the server asks to wait, at most {@link MAX_RETRY_AFTER_MS} (RFC 9110, 10.2.3: seconds or a date). */
export function retryAfterMs(response: Response): number {
  const text = response.headers.get('retry-after')?.trim() ?? '';
  const wanted = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(wanted) ? Math.min(MAX_RETRY_AFTER_MS, Math.max(0, wanted)) : 0;
}

function parseJson<T>(schema: BodySchema<T>, response: Response, body: Uint8Array): T {
  let value: unknown;
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(body);
    value = text === '' ? undefined : JSON.parse(text);
  } catch (cause) {
    throw new DecantError('HTTP_BODY_INVALID', 'The server answered with something that is not JSON.', {
      hint: 'Check that the address is that of a decant server.',
      details: { status: response.status, contentType: response.headers.get('content-type') },
      retryable: false,
      cause,
    });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new DecantError('HTTP_BODY_INVALID', 'The server answered with JSON of an unexpected shape.', {
    hint: 'Check that client and server are of the same version.',
    details: { status: response.status, problem: parsed.error.message.slice(0, 2000) },
    retryable: false,
  });
}
