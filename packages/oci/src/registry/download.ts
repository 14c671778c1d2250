import { DecantError, isDecantError, MIB, sleep } from '@decant/core';
import { discardBody } from '@decant/transport';

import type { BlobName, ReadOptions } from '../blob-source.ts';
import { isIndexType, isManifestType } from '../media-types.ts';
import type { RepositoryClient } from './client.ts';

/** Failures in a row, each with less than {@link PROGRESS_BYTES} in between, after which a download is given up. */
const MAX_FAILURES = 5;
const PROGRESS_BYTES = MIB;
/** Longest time between two pieces of a body, in milliseconds. */
const STALL_MS = 60_000;
const FIRST_DELAY_MS = 50;

/**
 * A blob of a repository, or a manifest by its digest, as it comes. A cut connection is resumed with a range
 * request. More bytes than declared fail at once; the digest is for the caller to check.
 * @throws OCI_DIGEST_MISMATCH when there are more bytes, HTTP_UNREACHABLE when it is cut too often, and what
 * {@link RepositoryClient.request} throws.
 */
export async function* download(
  client: RepositoryClient,
  blob: BlobName,
  options: ReadOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const { signal } = options;
  let done = 0;
  let failures = 0;
  let lastFailure = 0;
  while (done < blob.size || done === 0) {
    try {
      for await (const piece of readFrom(client, blob, done, signal)) {
        done += piece.length;
        yield piece;
      }
      if (done === blob.size) return;
      throw cut(client, blob, done);
    } catch (error) {
      signal?.throwIfAborted();
      if (!isDecantError(error) || !error.retryable) throw error;
      failures = done - lastFailure >= PROGRESS_BYTES ? 1 : failures + 1;
      lastFailure = done;
      if (failures >= MAX_FAILURES) throw error;
      await sleep(FIRST_DELAY_MS * 2 ** (failures - 1), signal);
    }
  }
}

async function* readFrom(
  client: RepositoryClient,
  blob: BlobName,
  start: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const isDocument = isManifestType(blob.mediaType) || isIndexType(blob.mediaType);
  const what = `the ${isDocument ? 'manifest' : 'blob'} ${blob.digest}`;
  const response = await client.request('GET', client.url(`${isDocument ? 'manifests' : 'blobs'}/${blob.digest}`), {
    headers: {
      // Another encoding would hide how many bytes there are.
      'accept-encoding': 'identity',
      ...(isDocument ? { accept: blob.mediaType } : {}),
      ...(start > 0 ? { range: `bytes=${start}-` } : {}),
    },
    expect: start > 0 ? [200, 206] : [200],
    what,
    signal,
  });
  // A server without ranges sends everything again.
  let skip = response.status === 206 ? 0 : start;
  if (response.status === 206 && rangeStart(response) !== start) {
    discardBody(response);
    throw new DecantError(
      'HTTP_BODY_INVALID',
      `${client.origin.host} sent another range of ${what} than was asked for.`,
    );
  }
  let room = blob.size - start;
  for await (const piece of bodyOf(response, client, blob, start, signal)) {
    const fresh = piece.subarray(Math.min(skip, piece.length));
    skip -= piece.length - fresh.length;
    room -= fresh.length;
    if (room < 0) {
      throw new DecantError(
        'OCI_DIGEST_MISMATCH',
        `${client.origin.host} sent more than the ${blob.size} bytes of ${what}.`,
        {
          details: { digest: blob.digest, sizeBytes: blob.size },
        },
      );
    }
    if (fresh.length > 0) yield fresh;
  }
}

function rangeStart(response: Response): number | undefined {
  const [, start] = /^bytes (\d{1,15})-/.exec(response.headers.get('content-range') ?? '') ?? [];
  return start === undefined ? undefined : Number(start);
}

/** The pieces of a body; a cut or stalled one fails as HTTP_UNREACHABLE. */
async function* bodyOf(
  response: Response,
  client: RepositoryClient,
  blob: BlobName,
  start: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  if (response.body === null) return;
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let done = start;
  let ended = false;
  try {
    for (;;) {
      const next = await inTime(reader.read(), signal);
      if (next.done) {
        ended = true;
        return;
      }
      done += next.value.length;
      yield next.value;
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (isDecantError(error)) throw error;
    throw cut(client, blob, done, error);
  } finally {
    if (!ended) void reader.cancel().catch(() => undefined);
  }
}

async function inTime<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  let stop: (() => void) | undefined;
  const bound = new Promise<never>((_, reject) => {
    const timer = setTimeout(() => reject(new Error(`nothing came for ${STALL_MS} ms`)), STALL_MS);
    const onAbort = () => reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    stop = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
  });
  try {
    return await Promise.race([promise, bound]);
  } finally {
    stop?.();
  }
}

function cut(client: RepositoryClient, blob: BlobName, done: number, cause?: unknown): DecantError {
  const { host } = client.origin;
  return new DecantError('HTTP_UNREACHABLE', `${host} cut off ${blob.digest} after ${done} of ${blob.size} bytes.`, {
    details: { host, digest: blob.digest, doneBytes: done, sizeBytes: blob.size },
    hint: 'Try again.',
    cause,
  });
}
