import { DecantError, sleep, type Fetch } from '@decant/core';
import { discardBody, readBody, retryAfterMs, send } from '@decant/transport';

import type { CredentialLookup } from '../docker-config.ts';
import type { ImageReference } from '../reference.ts';
import { RegistryAuth, unauthorized } from './auth.ts';
import { parseChallenge } from './challenge.ts';
import { allowedTarget, originOf } from './origin.ts';

export type RegistryMethod = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface RegistryRequest {
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Made anew for each time the request is sent. */
  readonly body?: (() => Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>) | undefined;
  /** Statuses to hand back; every other one is thrown. */
  readonly expect: readonly number[];
  /** What is wanted, for messages: "the manifest …". */
  readonly what: string;
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

const MAX_REDIRECTS = 5;
const MAX_ERROR_BYTES = 64 * 1024;

/** One repository of one registry, and what may be done there. */
export class RepositoryClient {
  readonly origin: URL;
  readonly #reference: Pick<ImageReference, 'registry' | 'repository'>;
  readonly #fetch: Fetch;
  readonly #auth: RegistryAuth;
  readonly #scope: string;
  /** When the registry wants to be asked again at the earliest, on the clock of `performance`. */
  #notBefore = 0;

  constructor(options: {
    readonly reference: Pick<ImageReference, 'registry' | 'repository'>;
    readonly fetch: Fetch;
    readonly credentials: CredentialLookup | undefined;
    readonly access: 'pull' | 'push';
    /** Another repository that blobs are mounted from. */
    readonly mountFrom?: string | undefined;
  }) {
    const { reference, fetch, credentials, access, mountFrom } = options;
    this.#reference = reference;
    this.#fetch = fetch;
    this.origin = originOf(reference.registry);
    this.#auth = new RegistryAuth({ origin: this.origin, registry: reference.registry, fetch, credentials });
    const scopes = [`repository:${reference.repository}:${access === 'pull' ? 'pull' : 'pull,push'}`];
    if (mountFrom !== undefined && mountFrom !== reference.repository) scopes.push(`repository:${mountFrom}:pull`);
    this.#scope = scopes.join(' ');
  }

  /** URL of something in the repository: `manifests/…`, `blobs/…`. */
  url(path: string): URL {
    return new URL(`/v2/${this.#reference.repository}/${path}`, this.origin);
  }

  /** Where an upload goes on, as the registry said. */
  locationOf(response: Response, asked: URL, what: string): URL {
    const location = response.headers.get('location');
    discardBody(response);
    if (location === null) throw this.#unexpected(`gave no location for ${what}`);
    return allowedTarget(location, asked, what);
  }

  /**
   * Sends a request, meets one challenge and follows the redirects of reads. Credentials go to the registry's
   * own origin and to the token issuer it names, nowhere else.
   * @throws UNAUTHORIZED, FORBIDDEN, NOT_FOUND, HTTP_STATUS, HTTP_UNREACHABLE, TIMEOUT
   */
  async request(method: RegistryMethod, url: URL, request: RegistryRequest): Promise<Response> {
    const { signal } = request;
    let authorization = this.#auth.current(this.#scope);
    for (let answered = false; ; answered = true) {
      const response = await this.#follow(method, url, request, authorization);
      if (request.expect.includes(response.status)) return response;
      if (response.status !== 401 || answered) throw await this.#failure(response, request);
      const challenge = parseChallenge(response.headers.get('www-authenticate'));
      discardBody(response);
      authorization = challenge === undefined ? undefined : await this.#auth.answer(challenge, this.#scope, signal);
      if (authorization === undefined) throw unauthorized(this.#reference.registry, undefined);
    }
  }

  async #follow(
    method: RegistryMethod,
    url: URL,
    request: RegistryRequest,
    authorization: string | undefined,
  ): Promise<Response> {
    const { timeoutMs, signal } = request;
    let at = url;
    for (let redirects = 0; ; redirects++) {
      const own = at.origin === this.origin.origin && authorization !== undefined;
      const headers = { ...request.headers, ...(own ? { authorization } : {}) };
      const body = request.body?.();
      const init = {
        method,
        headers,
        ...(body === undefined
          ? {}
          : { body: body as ReadableStream<Uint8Array<ArrayBuffer>>, duplex: 'half' as const }),
      };
      const wait = this.#notBefore - performance.now();
      if (wait > 0) await sleep(wait, signal);
      const response = await send(this.#fetch, at.href, init, { timeoutMs, signal });
      // For all that is asked of this registry: what waits beside this would only be refused as well.
      if (response.status === 429 || response.status === 503) {
        this.#notBefore = Math.max(this.#notBefore, performance.now() + retryAfterMs(response));
      }
      const location = response.headers.get('location');
      const redirected = [301, 302, 303, 307, 308].includes(response.status) && location !== null;
      if (!redirected || (method !== 'GET' && method !== 'HEAD')) return response;
      discardBody(response);
      if (redirects >= MAX_REDIRECTS)
        throw this.#unexpected(`redirects more than ${MAX_REDIRECTS} times for ${request.what}`);
      at = allowedTarget(location, at, request.what);
    }
  }

  async #failure(response: Response, { what, signal }: RegistryRequest): Promise<DecantError> {
    const { registry } = this.#reference;
    const { status } = response;
    const said = await this.#said(response, signal);
    const details = { status, registry, ...(said === '' ? {} : { said }) };
    const because = said === '' ? '' : ` (${said})`;
    if (status === 401) return unauthorized(registry, this.#auth.used);
    if (status === 403) {
      return new DecantError('FORBIDDEN', `${registry} does not allow ${what}${because}.`, { details });
    }
    if (status === 404)
      return new DecantError('NOT_FOUND', `${registry} does not have ${what}${because}.`, { details });
    const retryable = status === 429 || status >= 500;
    return new DecantError('HTTP_STATUS', `${registry} answered ${status} for ${what}${because}.`, {
      details,
      retryable,
    });
  }

  /** The registry's own words, in the form of the distribution specification, cut and without control characters. */
  async #said(response: Response, signal: AbortSignal | undefined): Promise<string> {
    try {
      const bytes = await readBody(response, MAX_ERROR_BYTES, { timeoutMs: 10_000, signal });
      const { errors } = JSON.parse(new TextDecoder().decode(bytes)) as {
        errors?: { code?: unknown; message?: unknown }[];
      };
      const { code, message } = errors?.[0] ?? {};
      const words = [code, message].filter((word) => typeof word === 'string' && word !== '').join(': ');
      // eslint-disable-next-line no-control-regex
      return words.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ').slice(0, 200);
    } catch {
      signal?.throwIfAborted();
      return '';
    }
  }

  #unexpected(did: string): DecantError {
    return new DecantError('HTTP_BODY_INVALID', `${this.origin.host} ${did}.`, {
      details: { host: this.origin.host },
      retryable: false,
    });
  }
}
