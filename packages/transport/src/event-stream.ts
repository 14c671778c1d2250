import { DecantError, isDecantError, sleep, untilAborted } from '@decant/core';
import { createParser } from 'eventsource-parser';

import type { HttpClient } from './http-client.ts';
import { discardBody } from './send.ts';

/** Most characters of one event, its unfinished line included. */
export const MAX_EVENT_CHARACTERS = 4 * 1024 * 1024;

/** One event of a `text/event-stream` (HTML standard, "Server-sent events"). */
export interface ServerSentEvent {
  /** Undefined for an event without a name. */
  readonly event: string | undefined;
  /** The id that this event itself carries. */
  readonly id: string | undefined;
  readonly data: string;
}

export interface ReadEventsOptions {
  /** Milliseconds without a byte (a comment counts) after which the stream is taken for dead; default 60,000. */
  readonly idleTimeoutMs?: number | undefined;
  /** Told of bytes that came, comments included. */
  readonly onBytes?: (() => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The events of one answer until its end.
 * @throws HTTP_BODY_INVALID for another content type, HTTP_UNREACHABLE when it is cut, TIMEOUT when it is silent,
 * LIMIT_EXCEEDED for an event over {@link MAX_EVENT_CHARACTERS}.
 */
export async function* readEvents(
  response: Response,
  options: ReadEventsOptions = {},
): AsyncGenerator<ServerSentEvent, void> {
  const { idleTimeoutMs = 60_000, signal } = options;
  const type = response.headers.get('content-type') ?? '';
  if (!/^text\/event-stream\b/i.test(type) || response.body === null) {
    discardBody(response);
    throw new DecantError('HTTP_BODY_INVALID', 'The server answered with something that is no event stream.', {
      hint: 'Check that the address is that of a decant server.',
      details: { status: response.status, contentType: type },
      retryable: false,
    });
  }
  const ready: ServerSentEvent[] = [];
  let overflow = false;
  const parser = createParser({
    maxBufferSize: MAX_EVENT_CHARACTERS,
    onEvent: ({ event, id, data }) => ready.push({ event, id, data }),
    onError: ({ type: kind }) => {
      if (kind === 'max-buffer-size-exceeded') overflow = true;
    },
  });
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), idleTimeoutMs, signal);
      if (done) return;
      options.onBytes?.();
      parser.feed(decoder.decode(value, { stream: true }));
      yield* ready.splice(0);
      if (overflow) {
        throw new DecantError('LIMIT_EXCEEDED', `An event is longer than ${MAX_EVENT_CHARACTERS} characters.`);
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

async function within<T>(work: Promise<T>, timeoutMs: number, signal: AbortSignal | undefined): Promise<T> {
  const silent = new AbortController();
  const timer = setTimeout(() => {
    silent.abort(new DecantError('TIMEOUT', `The event stream was silent for ${timeoutMs} ms.`));
  }, timeoutMs);
  try {
    return await untilAborted(work, signal === undefined ? silent.signal : AbortSignal.any([signal, silent.signal]));
  } catch (error) {
    signal?.throwIfAborted();
    if (isDecantError(error)) throw error;
    throw new DecantError('HTTP_UNREACHABLE', 'The event stream was cut.', { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

export interface FollowOptions extends ReadEventsOptions {
  /** Whether this event is the last; a stream that ends without one is taken for cut. */
  readonly isEnd: (event: ServerSentEvent) => boolean;
  /** Milliseconds without a byte, over all attempts, after which to give up; default 120,000. */
  readonly patienceMs?: number | undefined;
  /** The same while the server answers 404, which also means "not there yet"; default 10,000. */
  readonly missingPatienceMs?: number | undefined;
  /** Pause before the first new attempt, in milliseconds; doubles up to `maxDelayMs`. Defaults 100 and 2,000. */
  readonly firstDelayMs?: number | undefined;
  readonly maxDelayMs?: number | undefined;
  /** Told before each new attempt, with what ended the one before. */
  readonly onCut?: ((error: unknown) => void) | undefined;
}

const TRY_AGAIN = new Set([404, 408, 425, 429, 500, 502, 503, 504]);

/**
 * The events of a path until the last one, over as many connections as it takes: each new one asks with
 * `Last-Event-ID` for what comes after the last event that carried an id. A connection that brought an event starts
 * the patience anew, so the number of cuts is not bounded, but the time without progress is.
 * @throws what ended the last attempt, when patience is over or another attempt is of no use.
 */
export async function* followEvents(
  client: HttpClient,
  path: string,
  options: FollowOptions,
): AsyncGenerator<ServerSentEvent, void> {
  const { signal, isEnd, patienceMs = 120_000, missingPatienceMs = 10_000 } = options;
  const { firstDelayMs = 100, maxDelayMs = 2000 } = options;
  let lastEventId: string | undefined;
  let progressMs = performance.now();
  let delayMs = firstDelayMs;
  for (;;) {
    let problem: unknown;
    try {
      const headers = {
        accept: 'text/event-stream',
        'cache-control': 'no-store',
        ...(lastEventId === undefined || lastEventId === '' ? {} : { 'last-event-id': lastEventId }),
      };
      const response = await client.request('GET', path, { headers, idempotent: false, signal });
      const onBytes = () => {
        progressMs = performance.now();
        options.onBytes?.();
      };
      for await (const event of readEvents(response, { ...options, onBytes })) {
        delayMs = firstDelayMs;
        if (event.id !== undefined) lastEventId = event.id;
        yield event;
        if (isEnd(event)) return;
        // The time the consumer took is not the server's.
        progressMs = performance.now();
      }
      problem = new DecantError('HTTP_UNREACHABLE', 'The event stream ended before its end event.');
    } catch (error) {
      signal?.throwIfAborted();
      problem = error;
    }
    const waited = performance.now() - progressMs;
    const limit = statusOf(problem) === 404 ? Math.min(missingPatienceMs, patienceMs) : patienceMs;
    if (!worthAnother(problem) || waited + delayMs > limit) throw problem;
    options.onCut?.(problem);
    await sleep(delayMs * (1 + Math.random() / 4), signal);
    delayMs = Math.min(maxDelayMs, delayMs * 2);
  }
}

function statusOf(error: unknown): number | undefined {
  const status = isDecantError(error) ? error.details['status'] : undefined;
  return typeof status === 'number' ? status : undefined;
}

function worthAnother(error: unknown): boolean {
  if (!isDecantError(error)) return false;
  const status = statusOf(error);
  if (status !== undefined && error.code !== 'HTTP_BODY_INVALID') return TRY_AGAIN.has(status);
  return error.code === 'HTTP_UNREACHABLE' || error.code === 'TIMEOUT';
}
