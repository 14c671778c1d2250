import {
  DecantError,
  isDecantError,
  retry,
  Semaphore,
  type ErrorCode,
  type Fetch,
  type RetryOptions,
  type SignedMultipart,
  type UploadedPart,
} from '@decant/core';
import { discardBody, readBody, send } from '@decant/transport';

import type { PartSource } from './part-source.ts';
import { formatCompletion, parseS3Answer } from './s3-xml.ts';

const MAX_ANSWER_BYTES = 64 * 1024;
const ABORT_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 60_000;

export interface UploadOptions {
  readonly signed: SignedMultipart;
  readonly source: PartSource;
  readonly fetch: Fetch;
  /** Parts on their way at once; default 3. */
  readonly concurrency?: number | undefined;
  /** Milliseconds one part may take; default 20 min (64 MiB at 55 KiB/s). */
  readonly partTimeoutMs?: number | undefined;
  /** Milliseconds one attempt at the completion may take: the store joins the parts in it. Default 20 min. */
  readonly completeTimeoutMs?: number | undefined;
  readonly retry?: Pick<RetryOptions, 'attempts' | 'firstDelayMs' | 'maxDelayMs'> | undefined;
  /** Bytes of the parts that have arrived so far. */
  readonly onBytes?: ((uploadedBytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface UploadResult {
  /** As signed: the only name of the object that may be used afterwards. */
  readonly uri: string;
  readonly uploadedBytes: number;
}

/**
 * Sends a source through signed URLs: parts side by side, each repeated when its failure may pass, then the
 * completion. An empty source is one empty part. When it fails or is aborted, nothing is visible and the
 * upload is dropped, as far as the store can still be reached.
 * @throws LIMIT_EXCEEDED when the signed parts do not hold the source; SIGN_URL_EXPIRED, SIGN_URL_INVALID,
 * UPLOAD_INVALID, DISK_FULL, HTTP_STATUS as the store says; HTTP_UNREACHABLE, TIMEOUT.
 */
export async function uploadMultipart(options: UploadOptions): Promise<UploadResult> {
  const { signed, source } = options;
  try {
    options.signal?.throwIfAborted();
    const parts = await sendParts(options);
    await complete(options, parts);
    return { uri: signed.uri, uploadedBytes: source.sizeBytes };
  } catch (error) {
    await dropUpload(options);
    throw error;
  }
}

async function sendParts(options: UploadOptions): Promise<UploadedPart[]> {
  const { signed, source, concurrency = 3, onBytes } = options;
  const { partSizeBytes, partUrls } = signed;
  const count = Math.max(1, Math.ceil(source.sizeBytes / partSizeBytes));
  if (count > partUrls.length) {
    throw new DecantError('LIMIT_EXCEEDED', `The upload needs ${count} parts, but ${partUrls.length} were signed.`, {
      details: { neededParts: count, signedParts: partUrls.length, partSizeBytes },
    });
  }
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const slots = new Semaphore(concurrency);
  let uploadedBytes = 0;
  const results = await Promise.allSettled(
    partUrls.slice(0, count).map((url, index) =>
      slots.run(async () => {
        const offset = index * partSizeBytes;
        const lengthBytes = Math.min(partSizeBytes, source.sizeBytes - offset);
        try {
          const etag = await sendPart(options, url, offset, lengthBytes, signal);
          uploadedBytes += lengthBytes;
          onBytes?.(uploadedBytes);
          return { partNumber: index + 1, etag };
        } catch (error) {
          // The others are waited for below: a part that arrives after the upload was dropped would stay.
          stop.abort(error);
          throw error;
        }
      }, signal),
    ),
  );
  options.signal?.throwIfAborted();
  stop.signal.throwIfAborted();
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

function sendPart(
  options: UploadOptions,
  url: string,
  offset: number,
  lengthBytes: number,
  signal: AbortSignal,
): Promise<string> {
  const { fetch, source, partTimeoutMs = 1_200_000 } = options;
  return retry(
    async () => {
      const body = await source.part(offset, lengthBytes);
      const init = { method: 'PUT', body, ...(body instanceof ReadableStream ? { duplex: 'half' as const } : {}) };
      const response = await send(fetch, url, init, { timeoutMs: partTimeoutMs, signal }).catch((error: unknown) => {
        throw sourceChanged(error) ?? error;
      });
      if (!response.ok) throw await failureOf(response, signal);
      discardBody(response);
      const etag = response.headers.get('etag')?.replace(/^"(.*)"$/, '$1');
      if (etag === undefined || etag === '') {
        throw new DecantError('HTTP_BODY_INVALID', 'The store took a part but gave no ETag for it.', {
          hint: 'In a browser, the store must expose the ETag header.',
          retryable: false,
        });
      }
      return etag;
    },
    { ...options.retry, signal },
  );
}

/** Stores answer a lost completion that is asked for again as they answered it first (ours for a day). */
function complete(options: UploadOptions, parts: readonly UploadedPart[]): Promise<void> {
  const { fetch, signed, completeTimeoutMs = 1_200_000, signal } = options;
  const init = { method: 'POST', body: formatCompletion(parts), headers: { 'content-type': 'application/xml' } };
  return retry(
    async () => {
      const response = await send(fetch, signed.completeUrl, init, { timeoutMs: completeTimeoutMs, signal });
      if (!response.ok) throw await failureOf(response, signal);
      // S3 sends its status before it joins the parts, so a failure can come as a document under 200.
      const text = await readText(response, completeTimeoutMs, signal);
      const answer = parseS3Answer(text);
      if (answer.error !== undefined) throw errorOf(500, answer.error.code, answer.error.message);
      if (answer.document !== 'CompleteMultipartUploadResult') {
        throw new DecantError('HTTP_BODY_INVALID', 'The store answered the completion with something unexpected.');
      }
    },
    { ...options.retry, signal },
  );
}

/** Best effort, and not bound to the caller's signal, which may be what ended the upload. */
async function dropUpload({ fetch, signed }: UploadOptions): Promise<void> {
  try {
    discardBody(await send(fetch, signed.abortUrl, { method: 'DELETE' }, { timeoutMs: ABORT_TIMEOUT_MS }));
  } catch {
    // The store removes uploads that nobody completes; the error that matters is the caller's.
  }
}

async function readText(response: Response, timeoutMs: number, signal: AbortSignal | undefined): Promise<string> {
  return new TextDecoder().decode(await readBody(response, MAX_ANSWER_BYTES, { timeoutMs, signal }));
}

async function failureOf(response: Response, signal: AbortSignal | undefined): Promise<DecantError> {
  const text = await readText(response, ANSWER_TIMEOUT_MS, signal).catch(() => '');
  signal?.throwIfAborted();
  const { error } = parseS3Answer(text);
  return errorOf(response.status, error?.code ?? '', error?.message ?? '');
}

const CODES: Readonly<Record<string, ErrorCode>> = {
  NoSuchKey: 'OBJECT_NOT_FOUND',
  NoSuchUpload: 'UPLOAD_INVALID',
  InvalidPart: 'UPLOAD_INVALID',
  InvalidPartOrder: 'UPLOAD_INVALID',
  MalformedXML: 'UPLOAD_INVALID',
  EntityTooLarge: 'LIMIT_EXCEEDED',
  EntityTooSmall: 'UPLOAD_INVALID',
  InsufficientStorage: 'DISK_FULL',
  SignatureDoesNotMatch: 'SIGN_URL_INVALID',
};
const PASSING = new Set([
  'RequestTimeout',
  'SlowDown',
  'InternalError',
  'ServiceUnavailable',
  'OperationAborted',
  'IncompleteBody',
]);

function errorOf(status: number, s3Code: string, told: string): DecantError {
  const message =
    told === '' ? `The store answered with status ${status}.` : `The store refused: ${told.slice(0, 1000)}`;
  const details = { status, s3Code };
  if (s3Code === 'AccessDenied' && /expired/i.test(told)) {
    return new DecantError('SIGN_URL_EXPIRED', 'The signed URL has expired.', {
      hint: 'Start the upload again.',
      details,
    });
  }
  const code = CODES[s3Code];
  // A full disk is not emptied by asking again at once.
  if (code !== undefined) return new DecantError(code, message, { details, retryable: false });
  if (status === 401 || status === 403) return new DecantError('SIGN_URL_INVALID', message, { details });
  const retryable = PASSING.has(s3Code) || status === 408 || status === 429 || status >= 500;
  return new DecantError('HTTP_STATUS', message, { details, retryable });
}

/** A file-backed blob that cannot be read any more hides below what fetch throws. */
function sourceChanged(error: unknown): DecantError | undefined {
  for (let at = error, depth = 0; depth < 6 && typeof at === 'object' && at !== null; depth++) {
    if ((at as { name?: unknown }).name === 'NotReadableError') {
      return new DecantError('UPLOAD_INVALID', 'The file changed while it was uploaded.', { cause: error });
    }
    at = (at as { cause?: unknown }).cause;
  }
  return isDecantError(error) ? error : undefined;
}
