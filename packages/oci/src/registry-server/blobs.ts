import type { ByteRange, ObjectStore } from '@decant/core';

import { RegistryProblem } from './answers.ts';
import type { DigestUse } from './digest-use.ts';
import type { RegistryKeys } from './keys.ts';

export interface BlobPlace {
  readonly store: ObjectStore;
  readonly keys: RegistryKeys;
  readonly use: DigestUse;
}

/** A blob or a range of it, if the repository has it. */
export async function getBlob(
  place: BlobPlace,
  repository: string,
  digest: string,
  request: Request,
): Promise<Response> {
  if (request.method !== 'HEAD') return answerBlob(place, repository, digest, request);
  // A client that asks whether a blob is there will not send it, and name it in a manifest next.
  return place.use.using(digest, async () => {
    await needBlob(place.store, place.keys, repository, digest, request.signal);
    return answerBlob(place, repository, digest, request);
  });
}

async function answerBlob(
  { store, keys }: BlobPlace,
  repository: string,
  digest: string,
  request: Request,
): Promise<Response> {
  const { signal } = request;
  const link = await store.head(keys.link(repository, digest), { signal });
  const blob = link === undefined ? undefined : await store.head(keys.blob(digest), { signal });
  if (blob === undefined) throw new RegistryProblem('BLOB_UNKNOWN', `There is no blob ${digest}.`);
  const { sizeBytes } = blob;
  const headers: Record<string, string> = {
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    'accept-ranges': 'bytes',
    etag: `"${digest}"`,
  };
  if (request.method === 'HEAD') {
    return new Response(null, { headers: { ...headers, 'content-length': String(sizeBytes) } });
  }
  const range = rangeOf(request.headers.get('range'), sizeBytes);
  const lengthBytes = range?.lengthBytes ?? sizeBytes;
  headers['content-length'] = String(lengthBytes);
  if (range !== undefined) {
    headers['content-range'] = `bytes ${range.offset}-${range.offset + lengthBytes - 1}/${sizeBytes}`;
  }
  const body = lengthBytes === 0 ? null : streamOf(store.stream(keys.blob(digest), { range, signal }));
  return new Response(body, { status: range === undefined ? 200 : 206, headers });
}

/** Takes back that a collection found a blob unneeded; the caller holds it with `DigestUse.using`. */
export async function needBlob(
  store: ObjectStore,
  keys: RegistryKeys,
  repository: string,
  digest: string,
  signal: AbortSignal,
): Promise<void> {
  await store.delete(keys.linkMark(repository, digest), { signal });
  await store.delete(keys.blobMark(digest), { signal });
}

/** One range of bytes (RFC 9110, section 14.2); several, or other units, get the whole. */
function rangeOf(header: string | null, sizeBytes: number): ByteRange | undefined {
  const [, from, to] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? [];
  if (from === undefined || to === undefined || (from === '' && to === '')) return undefined;
  const offset = from === '' ? Math.max(0, sizeBytes - Number(to)) : Number(from);
  const last = from === '' || to === '' ? sizeBytes - 1 : Math.min(Number(to), sizeBytes - 1);
  if (from !== '' && to !== '' && Number(to) < offset) return undefined;
  if (offset > last) {
    throw new RegistryProblem('RANGE_INVALID', 'The range lies outside the blob.', {
      'content-range': `bytes */${sizeBytes}`,
    });
  }
  return { offset, lengthBytes: last - offset + 1 };
}

function streamOf(source: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const pieces = source[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      async pull(controller) {
        const next = await pieces.next();
        if (next.done === true) controller.close();
        // Not copied: an object's piece belongs to whoever asked for it.
        else controller.enqueue(next.value as Uint8Array<ArrayBuffer>);
      },
      async cancel() {
        await pieces.return?.();
      },
    },
    { highWaterMark: 1 },
  );
}
