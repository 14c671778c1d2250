import { DecantError, isDecantError, untilAborted, type CallOptions, type Fetch } from '@decant/core';

import type { ReadPackRange } from './read-frames.ts';

export interface HttpRangesOptions {
  /** May throw a DecantError of its own for an answer it does not like; anything else it throws is HTTP_UNREACHABLE. */
  readonly fetch: Fetch;
  /** The URL of a pack, asked for before each request: a signed one ends. */
  readonly url: (pack: number, options: CallOptions) => string | Promise<string>;
  /** Milliseconds for one request with its body; default 60,000. */
  readonly timeoutMs?: number | undefined;
}

const DEFAULT_TIMEOUT_MS = 60_000;

/**
 * Reads packs over HTTP, for {@link createPackSource}: `Range` requests without retry. Runs in a browser, too; across origins
 * the server has to allow the header `Range` and to expose `Content-Range`, or the body's length alone is checked.
 * Throws CAS_CHUNK_MISSING (404 and 416), HTTP_STATUS (another status but 206; retryable for 408, 429 and from 500 on),
 * HTTP_BODY_INVALID (another range than asked for, or not its length), HTTP_UNREACHABLE and TIMEOUT. Messages name the host
 * only, since a URL may carry a signature.
 */
export function createHttpRanges(options: HttpRangesOptions): ReadPackRange<number> {
  const { fetch, url, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  return async (pack, offset, lengthBytes, { signal }) => {
    signal?.throwIfAborted();
    const address = await url(pack, { signal });
    const { host } = new URL(address);
    const limit = new AbortController();
    const timer = setTimeout(
      () => limit.abort(new DecantError('TIMEOUT', `${host} did not answer within ${timeoutMs} ms.`)),
      timeoutMs,
    );
    const both = signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]);
    try {
      const headers = { range: `bytes=${offset}-${offset + lengthBytes - 1}` };
      const response = await untilAborted(fetch(address, { headers, signal: both }), both);
      return await rangeOf(response, host, offset, lengthBytes, both);
    } catch (error) {
      signal?.throwIfAborted();
      limit.signal.throwIfAborted();
      if (isDecantError(error)) throw error;
      throw new DecantError('HTTP_UNREACHABLE', `No answer from ${host}.`, { details: { host }, cause: error });
    } finally {
      clearTimeout(timer);
    }
  };
}

/** The body of the answer to a request for a range, read no further than that range is long. */
async function rangeOf(
  response: Response,
  host: string,
  offset: number,
  lengthBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { status, headers, body } = response;
  const range = headers.get('content-range');
  const expected = `bytes ${offset}-${offset + lengthBytes - 1}/`;
  // A server that knows no ranges gives the whole, which is what was asked for when it is as long.
  const whole = status === 200 && offset === 0 && headers.get('content-length') === String(lengthBytes);
  if ((status !== 206 && !whole) || (range !== null && !range.startsWith(expected))) {
    void body?.cancel().catch(() => undefined);
    throw refusal(status, host, range);
  }
  const bytes = new Uint8Array(lengthBytes);
  let done = 0;
  if (body !== null) {
    const reader = body.getReader();
    try {
      for (;;) {
        const piece = await untilAborted(reader.read(), signal);
        if (piece.done) break;
        if (done + piece.value.length > lengthBytes) throw badBody(host, 'more bytes than were asked for');
        bytes.set(piece.value, done);
        done += piece.value.length;
      }
    } catch (error) {
      void reader.cancel(error).catch(() => undefined);
      throw error;
    }
  }
  if (done !== lengthBytes) throw badBody(host, `${done} bytes of ${lengthBytes}`);
  return bytes;
}

function refusal(status: number, host: string, range: string | null): DecantError {
  const details = { host, status };
  if (status === 206) return badBody(host, `the range ${JSON.stringify(range)}`);
  if (status === 200) return badBody(host, 'the whole of a pack, not the range that was asked for');
  if (status === 404 || status === 416) {
    return new DecantError('CAS_CHUNK_MISSING', `${host} does not have a pack of the image, or it is too short.`, {
      details,
    });
  }
  return new DecantError('HTTP_STATUS', `${host} answered a read of a pack with status ${status}.`, {
    details,
    retryable: status === 408 || status === 429 || status >= 500,
  });
}

function badBody(host: string, what: string): DecantError {
  return new DecantError('HTTP_BODY_INVALID', `${host} gave ${what}.`, { details: { host } });
}
