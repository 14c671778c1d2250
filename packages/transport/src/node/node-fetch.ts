import type { Fetch } from '@decant/core';
import { Agent, fetch as undiciFetch } from 'undici';

export interface NodeFetchOptions {
  /** Most connections to one origin; default 16. */
  readonly connections?: number | undefined;
  /** Milliseconds until a connection stands; default 10,000. */
  readonly connectTimeoutMs?: number | undefined;
  /** Milliseconds until the headers of an answer have come; default 20 min, callers set tighter ones. */
  readonly headersTimeoutMs?: number | undefined;
  /** Milliseconds between two pieces of a body; default 300,000. */
  readonly bodyTimeoutMs?: number | undefined;
  /** Path of a Unix socket that every connection goes to, whatever host the URL names. */
  readonly socketPath?: string | undefined;
}

export interface NodeFetch extends AsyncDisposable {
  readonly fetch: Fetch;
  /** Closes the connections; what is still under way fails. */
  close(): Promise<void>;
}

/**
 * A fetch with its own bounded connections. It is undici's fetch with undici's Agent: the runtime's own fetch
 * holds another copy of undici, and the two do not mix.
 */
export function createNodeFetch(options: NodeFetchOptions = {}): NodeFetch {
  const { connections = 16, connectTimeoutMs = 10_000, socketPath } = options;
  const agent = new Agent({
    connections,
    pipelining: 1,
    allowH2: false,
    headersTimeout: options.headersTimeoutMs ?? 1_200_000,
    bodyTimeout: options.bodyTimeoutMs ?? 300_000,
    connect: { timeout: connectTimeoutMs, ...(socketPath === undefined ? {} : { socketPath }) },
  });
  const fetch: Fetch = (input, init) => {
    const [url, given] = input instanceof Request ? [input.url, initOf(input, init)] : [input, init];
    return undiciFetch(url, { ...ownForms(given), dispatcher: agent } as never);
  };
  let closing: Promise<void> | undefined;
  // Not agent.close(): it waits without bound for answers that nobody reads, and cannot be hurried afterwards.
  const close = () => (closing ??= agent.destroy());
  return { fetch, close, [Symbol.asyncDispose]: close };
}

type Init = RequestInit & { duplex?: 'half' };

/** A Request of the runtime as what undici's fetch takes: it does not know the runtime's class. */
function initOf(request: Request, init: Init = {}): Init {
  return {
    method: request.method,
    headers: request.headers,
    redirect: request.redirect,
    signal: request.signal,
    ...(request.body === null ? {} : { body: request.body, duplex: 'half' as const }),
    ...init,
  };
}

/** Nor the runtime's FormData, which it would send as the text of its name. */
function ownForms(init: Init = {}): Init {
  if (!(init.body instanceof FormData)) return init;
  const encoded = new Response(init.body);
  const headers = new Headers(init.headers);
  headers.set('content-type', encoded.headers.get('content-type') ?? 'multipart/form-data');
  return { ...init, headers, body: encoded.body, duplex: 'half' };
}
