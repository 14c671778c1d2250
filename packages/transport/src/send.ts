import { concatBytes, DecantError, isDecantError, untilAborted, type Fetch } from '@decant/core';

/** Milliseconds one request may take until its answer's headers, when nothing else is said. */
export const DEFAULT_TIMEOUT_MS = 60_000;

export interface SendOptions {
  /** Milliseconds until the headers of the answer; at most 2^31 - 1. Default 60,000. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * One request without retry. Redirects are not followed. The signal also cuts the body of the answer.
 * @throws HTTP_UNREACHABLE when there is no answer, TIMEOUT when it takes too long; both name the host only,
 * since a URL may carry a signature.
 */
export async function send(
  fetch: Fetch,
  url: string,
  init: Omit<RequestInit, 'signal'> & { duplex?: 'half' },
  options: SendOptions = {},
): Promise<Response> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  signal?.throwIfAborted();
  const host = hostOf(url);
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(timeoutOf(host, timeoutMs)), timeoutMs);
  const both = signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]);
  try {
    // An injected fetch may ignore its signal, so the wait is raced as well.
    return await untilAborted(fetch(url, { redirect: 'manual', ...init, signal: both }), both);
  } catch (error) {
    signal?.throwIfAborted();
    limit.signal.throwIfAborted();
    if (isDecantError(error)) throw error;
    throw unreachable(host, error);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Reads a whole body of at most `maxBytes`, within `timeoutMs`.
 * @throws LIMIT_EXCEEDED when it is longer (the rest is not read), HTTP_UNREACHABLE when it is cut, TIMEOUT.
 */
export async function readBody(
  response: Response,
  maxBytes: number,
  options: SendOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  const host = hostOf(response.url);
  if (response.body === null) return new Uint8Array();
  const reader = response.body.getReader();
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(timeoutOf(host, timeoutMs)), timeoutMs);
  const both = signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]);
  const pieces: Uint8Array[] = [];
  let length = 0;
  try {
    const declared = Number(response.headers.get('content-length') ?? 0);
    if (declared > maxBytes) throw tooLong(host, maxBytes);
    for (;;) {
      const { done, value } = await untilAborted(reader.read(), both);
      if (done) break;
      length += value.length;
      if (length > maxBytes) throw tooLong(host, maxBytes);
      pieces.push(value);
    }
  } catch (error) {
    void reader.cancel(error).catch(() => undefined);
    signal?.throwIfAborted();
    limit.signal.throwIfAborted();
    if (isDecantError(error)) throw error;
    throw unreachable(host, error);
  } finally {
    clearTimeout(timer);
  }
  return concatBytes(pieces);
}

/** Gives up the rest of a body nobody wants, so that its connection is free again. */
export function discardBody(response: Response): void {
  if (response.body !== null && !response.bodyUsed) void response.body.cancel().catch(() => undefined);
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : 'the server';
}

function timeoutOf(host: string, timeoutMs: number): DecantError {
  return new DecantError('TIMEOUT', `${host} did not answer within ${timeoutMs} ms.`, { details: { host, timeoutMs } });
}

function tooLong(host: string, maxBytes: number): DecantError {
  return new DecantError('LIMIT_EXCEEDED', `The answer of ${host} is longer than ${maxBytes} bytes.`, {
    details: { host, maxBytes },
  });
}

function unreachable(host: string, cause: unknown): DecantError {
  return new DecantError('HTTP_UNREACHABLE', `No answer from ${host}${reasonOf(cause)}.`, {
    hint: `Check that ${host} is right, running and reachable from here.`,
    details: { host },
    cause,
  });
}

/** The system's word for what went wrong, such as ECONNREFUSED; fetch hides it in the cause. */
function reasonOf(error: unknown): string {
  for (let at = error, depth = 0; depth < 5 && typeof at === 'object' && at !== null; depth++) {
    const { code, cause } = at as { code?: unknown; cause?: unknown };
    if (typeof code === 'string' && /^[A-Z][A-Z0-9_]{2,60}$/.test(code)) return ` (${code})`;
    at = cause;
  }
  return '';
}
