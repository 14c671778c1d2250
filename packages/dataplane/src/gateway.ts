import { DecantError, PART_BYTES, releaseBytes, type ObjectStore } from '@decant/core';

import { s3ErrorOf } from './gateway-errors.ts';
import { uploadInvalid, objectNotFound } from './object-errors.ts';
import { fingerprintOf } from './parts.ts';
import { piecesOf } from './pieces.ts';
import { formatCompletionResult, formatS3Error, MAX_COMPLETE_BYTES, parseCompletion } from './s3-xml.ts';
import { verifyPresigned, type Credentials } from './sigv4.ts';

export interface ObjectGatewayOptions {
  readonly store: ObjectStore;
  /** Whose signatures are accepted. */
  readonly credentials: Credentials;
  readonly region: string;
  /** The path before every key, for example `/objects`. */
  readonly basePath: string;
  /** The origin that the signer names, where a proxy changes the `Host` of requests; default: that of each request. */
  readonly publicOrigin?: string | undefined;
  /** Largest part in bytes; default 64 MiB. */
  readonly maxPartBytes?: number | undefined;
  /** Milliseconds since 1970; default: the clock. */
  readonly now?: (() => number) | undefined;
}

export type ObjectGateway = (request: Request) => Promise<Response>;

/**
 * Serves a store to holders of presigned URLs, with the part of S3 that they need: PUT of a part, POST of a
 * completion, DELETE of an upload, GET (one range) and HEAD of an object. Errors are S3's documents.
 */
export function createObjectGateway(options: ObjectGatewayOptions): ObjectGateway {
  const { store, credentials, region, maxPartBytes = PART_BYTES, now = Date.now } = options;
  const base = `${options.basePath.replace(/\/+$/, '')}/`;

  const answer = async (request: Request): Promise<Response> => {
    const reached = new URL(request.url);
    const url = new URL(`${options.publicOrigin ?? reached.origin}${reached.pathname}${reached.search}`);
    // Nothing is looked up before the signature is known to be good.
    await verifyPresigned(
      { method: request.method, url: url.href },
      {
        lookupSecret: (id) => (id === credentials.accessKeyId ? credentials.secretAccessKey : undefined),
        region,
        now,
      },
    );
    const key = keyOf(url, base);
    const { uploadId, partNumber } = parametersOf(url);
    const { signal } = request;
    switch (`${request.method} ${partNumber === undefined ? '' : 'part'}${uploadId === undefined ? '' : 'upload'}`) {
      case 'GET ':
        return getObject(store, key, request.headers.get('range'), signal);
      case 'HEAD ': {
        const info = await store.head(key, { signal });
        if (info === undefined) throw objectNotFound(key);
        return new Response(null, { headers: objectHeaders(info.sizeBytes) });
      }
      case 'PUT partupload': {
        const body = partBody(request, maxPartBytes);
        const { etag } = await store.putPart(key, uploadId!, Number(partNumber), body, { signal });
        return new Response(null, { headers: { etag: `"${etag}"` } });
      }
      case 'POST upload': {
        const parts = parseCompletion(await readText(request, MAX_COMPLETE_BYTES));
        if (parts.some((part, index) => index > 0 && part.partNumber <= parts[index - 1]!.partNumber)) {
          throw uploadInvalid('part-order', 'The parts are not in ascending order.');
        }
        // Not bound to the request's signal: a completion that has begun is finished, and asking again finds it.
        await store.completeMultipart(key, uploadId!, parts);
        const result = formatCompletionResult(key, url.origin + url.pathname, fingerprintOf(key, parts));
        return new Response(result, { headers: { 'content-type': 'application/xml' } });
      }
      case 'DELETE upload':
        await store.abortMultipart(key, uploadId!, { signal });
        return new Response(null, { status: 204 });
      default:
        throw new DecantError('USAGE', 'The gateway does not offer this operation.');
    }
  };

  return async (request) => {
    try {
      return await answer(request);
    } catch (error) {
      discard(request);
      const { status, headers, ...document } = s3ErrorOf(error);
      const body = request.method === 'HEAD' ? null : formatS3Error(document);
      return new Response(body, { status, headers: { 'content-type': 'application/xml', ...headers } });
    }
  };
}

function keyOf(url: URL, base: string): string {
  if (!url.pathname.startsWith(base)) throw new DecantError('OBJECT_NOT_FOUND', 'There are no objects at this path.');
  const components = url.pathname
    .slice(base.length)
    .split('/')
    .map((component) => decodeURIComponent(component));
  if (components.some((component) => component.includes('/'))) {
    throw new DecantError('OBJECT_KEY_INVALID', 'A component of the key has a slash.');
  }
  return components.join('/');
}

const SIGNATURE_PARAMETER = /^X-Amz-(Algorithm|Credential|Date|Expires|SignedHeaders|Signature)$/;

function parametersOf(url: URL): { uploadId?: string; partNumber?: string } {
  const found: Record<string, string> = {};
  for (const [name, value] of url.searchParams) {
    if (SIGNATURE_PARAMETER.test(name)) continue;
    // A parameter that changes what a request means must not be ignored.
    if (!['uploadId', 'partNumber'].includes(name) || Object.hasOwn(found, name)) {
      throw new DecantError('USAGE', 'The gateway does not offer this operation.');
    }
    found[name] = value;
  }
  return found;
}

/** The bytes of a part, counted. */
async function* partBody(request: Request, maxPartBytes: number): AsyncGenerator<Uint8Array, void> {
  const payload = request.headers.get('x-amz-content-sha256') ?? '';
  if (/aws-chunked/i.test(request.headers.get('content-encoding') ?? '') || payload.startsWith('STREAMING-')) {
    throw new DecantError('USAGE', 'The gateway does not take chunks with signatures of their own.');
  }
  const header = request.headers.get('content-length');
  const declared = header === null ? undefined : Number(header);
  const tooLarge = () =>
    new DecantError('LIMIT_EXCEEDED', `A part has at most ${maxPartBytes} bytes.`, { details: { maxPartBytes } });
  if (declared !== undefined && declared > maxPartBytes) throw tooLarge();
  let length = 0;
  if (request.body !== null) {
    for await (const piece of piecesOf(request.body, request.signal)) {
      length += piece.length;
      if (length > maxPartBytes) throw tooLarge();
      yield piece;
      // Stored, or copied: a part has a thousand pieces, and the collector is far behind.
      releaseBytes(piece);
    }
  }
  if (declared !== undefined && declared !== length) {
    throw uploadInvalid('part-cut', `The part was declared with ${declared} bytes, but ${length} came.`);
  }
}

async function readText(request: Request, maxBytes: number): Promise<string> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  if (request.body !== null) {
    for await (const piece of piecesOf(request.body, request.signal)) {
      length += piece.length;
      if (length > maxBytes) throw new DecantError('LIMIT_EXCEEDED', `A document has at most ${maxBytes} bytes.`);
      pieces.push(piece);
    }
  }
  return Buffer.concat(pieces).toString('utf8');
}

async function getObject(
  store: ObjectStore,
  key: string,
  header: string | null,
  signal: AbortSignal,
): Promise<Response> {
  const info = await store.head(key, { signal });
  if (info === undefined) throw objectNotFound(key);
  const { sizeBytes } = info;
  const range = rangeOf(header, sizeBytes);
  const headers = new Headers(objectHeaders(range?.lengthBytes ?? sizeBytes));
  if (range !== undefined) {
    headers.set('content-range', `bytes ${range.offset}-${range.offset + range.lengthBytes - 1}/${sizeBytes}`);
  }
  // Asked for the first piece before the headers go out, so that a failure is still an error's answer.
  const pieces = store.stream(key, { range, signal })[Symbol.asyncIterator]();
  const first = await pieces.next();
  return new Response(streamOf(first, pieces), { status: range === undefined ? 200 : 206, headers });
}

/**
 * A single range of RFC 9110, section 14: undefined when there is none that must be honoured.
 * @throws RangeError, with the size in its cause, when it is not satisfiable.
 */
function rangeOf(header: string | null, sizeBytes: number) {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '');
  if (match === null || (match[1] === '' && match[2] === '')) return undefined;
  const suffix = match[1] === '';
  const offset = suffix ? Math.max(0, sizeBytes - Number(match[2])) : Number(match[1]);
  const last = suffix || match[2] === '' ? sizeBytes - 1 : Number(match[2]);
  if (!suffix && match[2] !== '' && last < offset) return undefined;
  if (offset >= sizeBytes) throw new RangeError('the range is not inside the object', { cause: sizeBytes });
  return { offset, lengthBytes: Math.min(last, sizeBytes - 1) - offset + 1 };
}

function objectHeaders(lengthBytes: number): Record<string, string> {
  return {
    'content-type': 'application/octet-stream',
    'content-length': String(lengthBytes),
    'accept-ranges': 'bytes',
    'cache-control': 'private, no-store',
  };
}

function streamOf(first: IteratorResult<Uint8Array>, rest: AsyncIterator<Uint8Array>): ReadableStream<Uint8Array> {
  let next: IteratorResult<Uint8Array> | undefined = first;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = next ?? (await rest.next());
      next = undefined;
      if (done === true) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await rest.return?.();
    },
  });
}

/** Gives up a body that nobody will read, without waiting. */
function discard(request: Request): void {
  if (request.body !== null && !request.body.locked) void request.body.cancel().catch(() => undefined);
}
