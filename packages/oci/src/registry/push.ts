import { DecantError, retry, Semaphore, stage, type OnEvent } from '@decant/core';
import { discardBody } from '@decant/transport';

import type { OciImage } from '../image.ts';
import type { ImageTree } from '../image-tree.ts';
import { formatReference, isRepositoryName, type ImageReference } from '../reference.ts';
import { storedImage, type StoredBlob, type StoredDocument } from '../stored-image.ts';
import { RepositoryClient } from './client.ts';
import type { RegistryOptions } from './pull.ts';

export interface PushImageOptions extends RegistryOptions {
  /** Another repository of the same registry that may have the blobs: they are mounted from there where it does. */
  readonly mountFrom?: string | undefined;
  /** Blobs sent at a time; default 3. */
  readonly parallel?: number | undefined;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface PushedImage {
  /** Digest of the manifest or index. */
  readonly digest: string;
  /** Bytes of blobs that were sent; what the registry had is not counted. */
  readonly sentBytes: number;
  readonly sentBlobs: number;
  /** Blobs that the registry had already or took from the other repository. */
  readonly presentBlobs: number;
}

/** Longest time one blob may take to be sent, in milliseconds. */
const BLOB_TIMEOUT_MS = 2 * 60 * 60 * 1000;
const ATTEMPTS = 3;

/**
 * Copies an image, or an index with all it names, to a registry as it is stored: blobs first, those that are there
 * left out, the manifest or index that gets the tag last. A blob whose sending fails is sent again from its start.
 * @throws UNAUTHORIZED, FORBIDDEN, HTTP_…, TIMEOUT; OCI_DIGEST_MISMATCH when the source is damaged; USAGE when the
 * reference has a digest that is not the image's.
 */
export async function pushImage(
  image: OciImage | ImageTree,
  reference: ImageReference,
  options: PushImageOptions,
): Promise<PushedImage> {
  const { fetch, credentials, mountFrom, parallel = 3, onEvent, signal } = options;
  if (mountFrom !== undefined && !isRepositoryName(mountFrom)) {
    throw new DecantError('NAME_INVALID', 'The repository to mount from has no valid name.');
  }
  const { top, inner, blobs } = storedImage(image);
  const name = formatReference(reference);
  if (reference.digest !== undefined && reference.digest !== top.digest) {
    throw new DecantError('USAGE', `The image is ${top.digest} and cannot be pushed as ${name}.`);
  }
  const client = new RepositoryClient({ reference, fetch, credentials, access: 'push', mountFrom });
  return stage(onEvent, 'upload', async (finish) => {
    const slots = new Semaphore(parallel);
    const failed = new AbortController();
    const both = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
    let sentBytes = 0;
    let sentBlobs = 0;
    let items = 0;
    const send = async (blob: StoredBlob) => {
      try {
        const sent = await retry(() => pushBlob(client, blob, mountFrom, both), { attempts: ATTEMPTS, signal: both });
        if (sent) {
          sentBytes += blob.sizeBytes;
          sentBlobs++;
        }
        onEvent?.({
          type: 'stage-progress',
          stage: 'upload',
          bytes: sentBytes,
          items: ++items,
          totalItems: blobs.length,
        });
      } catch (error) {
        // The others need not go on; the first failure is the one to tell.
        failed.abort(error);
        throw error;
      }
    };
    const results = await Promise.allSettled(blobs.map((blob) => slots.run(() => send(blob), both)));
    signal?.throwIfAborted();
    failed.signal.throwIfAborted();
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    for (const document of [...inner, top]) {
      const place = document === top ? (reference.tag ?? top.digest) : document.digest;
      await retry(() => pushManifest(client, place, document, signal), { attempts: ATTEMPTS, signal });
    }
    finish({ bytes: sentBytes, items: blobs.length });
    return { digest: top.digest, sentBytes, sentBlobs, presentBlobs: blobs.length - sentBlobs };
  });
}

/** Returns whether the bytes had to be sent. */
async function pushBlob(
  client: RepositoryClient,
  blob: StoredBlob,
  mountFrom: string | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const { digest, sizeBytes } = blob;
  const what = `the blob ${digest}`;
  const there = await client.request('HEAD', client.url(`blobs/${digest}`), { expect: [200, 404], what, signal });
  discardBody(there);
  if (there.status === 200) return false;
  const start = client.url('blobs/uploads/');
  if (mountFrom !== undefined) {
    start.searchParams.set('mount', digest);
    start.searchParams.set('from', mountFrom);
  }
  const headers = { 'content-length': '0' };
  const begun = await client.request('POST', start, {
    headers,
    expect: [201, 202],
    what: `an upload of ${what}`,
    signal,
  });
  if (begun.status === 201) {
    discardBody(begun);
    return false;
  }
  const upload = client.locationOf(begun, start, `an upload of ${what}`);
  upload.searchParams.set('digest', digest);
  const source: { failure?: { readonly error: unknown } } = {};
  try {
    const done = await client.request('PUT', upload, {
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(sizeBytes) },
      body: () => streamOf(blob, signal, source),
      expect: [201, 204],
      what: `an upload of ${what}`,
      timeoutMs: BLOB_TIMEOUT_MS,
      signal,
    });
    discardBody(done);
  } catch (error) {
    // A source that fails shows as a broken request; its own error says more.
    if (source.failure !== undefined) throw source.failure.error;
    throw error;
  }
  return true;
}

function streamOf(
  blob: StoredBlob,
  signal: AbortSignal,
  source: { failure?: { readonly error: unknown } },
): ReadableStream<Uint8Array> {
  // The last piece is held back until the source has checked it, so that no registry gets all of a damaged blob.
  const pieces = behind(blob.read({ signal }))[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const next = await pieces.next();
          if (next.done === true) controller.close();
          else if (next.value.length > 0) controller.enqueue(next.value);
        } catch (error) {
          source.failure = { error };
          controller.error(error);
        }
      },
      async cancel() {
        await pieces.return?.();
      },
    },
    { highWaterMark: 1 },
  );
}

/** The same pieces, each one when the next is there or the source has ended well. */
async function* behind(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  let held: Uint8Array | undefined;
  for await (const piece of source) {
    if (held !== undefined) yield held;
    held = piece;
  }
  if (held !== undefined) yield held;
}

async function pushManifest(
  client: RepositoryClient,
  place: string,
  manifest: StoredDocument,
  signal: AbortSignal | undefined,
): Promise<void> {
  const url = client.url(`manifests/${place}`);
  const response = await client.request('PUT', url, {
    headers: { 'content-type': manifest.mediaType },
    body: () => new Uint8Array(manifest.bytes),
    expect: [200, 201, 202],
    what: `the manifest ${manifest.digest}`,
    signal,
  });
  discardBody(response);
  const said = response.headers.get('docker-content-digest');
  if (said !== null && said.startsWith('sha256:') && said !== manifest.digest) {
    throw new DecantError(
      'OCI_DIGEST_MISMATCH',
      `${client.origin.host} stored the manifest as ${said} and not as ${manifest.digest}.`,
    );
  }
}
