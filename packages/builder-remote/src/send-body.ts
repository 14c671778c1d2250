import { DecantError } from '@decant/core';
import type { HttpClient, RequestOptions } from '@decant/transport';

/** Milliseconds in which the server must take some bytes, or answer when it has all of them, whatever they are. */
const STALL_MS = 120_000;
/**
 * Bytes a millisecond that the slowest disk of a server takes. Gigabytes of content may lie in a few megabytes on the
 * wire, which are gone long before the server has unpacked, checked and stored them.
 */
const SLOWEST_BYTES_PER_MS = 10_000;
const LONGEST_MS = 2 ** 31 - 1;

export interface SendBodyOptions {
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Bytes of plain content that the server has to go through before it answers. */
  readonly contentBytes: number;
  /** Whether the body is sent while it is made; a browser gathers it first, since it cannot stream over HTTP/1.1. */
  readonly streaming: boolean;
  /** Told when the last byte has been handed over. */
  readonly onSent?: (() => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * POSTs a body that is made while it is sent, once. Errors are those of the client, and what making the body throws.
 * @throws TIMEOUT when the server takes no byte for two minutes and the time that a slow one needs for the content.
 */
export async function sendBody(client: HttpClient, path: string, options: SendBodyOptions): Promise<Response> {
  const { signal, headers, contentBytes } = options;
  const stallMs = Math.min(LONGEST_MS, STALL_MS + contentBytes / SLOWEST_BYTES_PER_MS);
  const stall = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const progress = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const message = `The server took nothing of the upload for ${Math.round(stallMs / 1000)} s.`;
      stall.abort(new DecantError('TIMEOUT', message));
    }, stallMs);
  };
  const both = signal === undefined ? stall.signal : AbortSignal.any([signal, stall.signal]);
  let failure: { readonly error: unknown } | undefined;
  async function* watched(): AsyncGenerator<Uint8Array, void> {
    try {
      for await (const piece of options.bytes) {
        progress();
        yield piece;
      }
      options.onSent?.();
    } catch (error) {
      failure = { error };
      throw error;
    }
  }
  progress();
  try {
    const rawBody = options.streaming ? ReadableStream.from(watched()) : new Blob(await gather(watched()));
    const request: RequestOptions = {
      rawBody: rawBody as NonNullable<RequestInit['body']>,
      headers,
      idempotent: false,
      timeoutMs: LONGEST_MS,
      signal: both,
    };
    return await client.request('POST', path, request);
  } catch (error) {
    signal?.throwIfAborted();
    stall.signal.throwIfAborted();
    // What went wrong while the body was made says more than the request that failed by it.
    if (failure !== undefined) throw failure.error;
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function gather(bytes: AsyncIterable<Uint8Array>): Promise<Uint8Array<ArrayBuffer>[]> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  for await (const piece of bytes) pieces.push(piece.slice());
  return pieces;
}
