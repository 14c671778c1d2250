import { createFileChunkStore } from '@decant/cas/node';
import {
  createHttpRanges,
  createPackSource,
  parseLocator,
  parseManifest,
  type ChunkStore,
  type Locator,
  type Manifest,
} from '@decant/cas';
import {
  DecantError,
  isDecantError,
  isStreamingImageId,
  parseImageId,
  retry,
  signPacksResponseSchema,
  type ChunkSource,
  type Fetch,
  type ImageDetail,
} from '@decant/core';
import { errorOfResponse, send } from '@decant/transport';
import { join } from 'node:path';

import { imagePath, inspectImage } from './image-names.ts';
import type { Session } from './session.ts';

/** A streaming image as it can be read from anywhere: what it is, its manifest, and where its chunks come from. */
export interface StreamingSource {
  readonly detail: ImageDetail;
  readonly manifest: Manifest;
  readonly source: ChunkSource;
  /** How many bytes each chunk takes at rest, among others. */
  readonly locator: Locator;
  /** Verified chunks of earlier reads; undefined when none are kept. */
  readonly cache: ChunkStore | undefined;
}

/** Most bytes of a manifest or locator that are read. */
const MAX_DOCUMENT_BYTES = 64 * 1024 * 1024;
/** Packs signed in one call. */
const SIGN_BATCH = 1024;
/** Signed URLs are asked for anew when they end within this time, in milliseconds. */
const EXPIRY_MARGIN_MS = 60_000;
const RANGE_TIMEOUT_MS = 60_000;

/**
 * Opens a streaming image through the read plane. The manifest is checked against the image's id, so the
 * server need not be trusted for content. @throws USAGE for an image that is one ext4 object.
 */
export async function openStreamingSource(
  session: Session,
  ref: string,
  signal: AbortSignal | undefined,
): Promise<StreamingSource> {
  const detail = await inspectImage(session, ref, { signal });
  const id = parseImageId(detail.image.id);
  if (!isStreamingImageId(id)) throw new DecantError('USAGE', `${ref} is an ext4 image: it does not stream.`);
  const path = imagePath(id);
  const hash = await session.hash();
  const limits = { maxBytes: MAX_DOCUMENT_BYTES, signal };
  const manifest = parseManifest(await session.client.bytes(`${path}/manifest`, limits), hash);
  if (manifest.id !== id) {
    throw new DecantError('CAS_MANIFEST_INVALID', `The server gave the manifest of ${manifest.id} for image ${id}.`, {
      hint: 'Its manifest is damaged: import or build the image again, which writes it anew.',
    });
  }
  const locator = parseLocator(await session.client.bytes(`${path}/locator`, limits));
  const urls = new PackUrls(session, path, locator);
  const readRange = createHttpRanges({
    fetch: (url, init) => fetchPack(session.fetch, url as string, init ?? {}),
    url: (pack, options) => urls.of(pack, options.signal),
    timeoutMs: RANGE_TIMEOUT_MS,
  });
  const source = createPackSource({
    manifest,
    locator,
    readRange: (pack, offset, lengthBytes, options) =>
      retry(() => readRange(pack, offset, lengthBytes, options), {
        signal: options.signal,
        when: (error) => isDecantError(error) && (error.retryable || error.code === 'FORBIDDEN'),
        attempts: 3,
      }),
  });
  const { cacheBytes = 0 } = session.options;
  const cache =
    cacheBytes === 0
      ? undefined
      : createFileChunkStore({ directory: join(session.paths.cache, 'chunks'), maxBytes: cacheBytes, hash });
  return { detail, manifest, source, locator, cache };
}

/** Signed URLs of an image's packs, asked for in batches and again before they end. */
class PackUrls {
  readonly #session: Session;
  readonly #path: string;
  readonly #locator: Locator;
  readonly #batches = new Map<number, Promise<{ urls: ReadonlyMap<number, string>; expiresAtMs: number }>>();

  constructor(session: Session, path: string, locator: Locator) {
    this.#session = session;
    this.#path = path;
    this.#locator = locator;
  }

  async of(pack: number, signal: AbortSignal | undefined): Promise<string> {
    const number = Math.floor(pack / SIGN_BATCH);
    let batch = await this.#batch(number, signal);
    if (batch.expiresAtMs - Date.now() < EXPIRY_MARGIN_MS) {
      this.#batches.delete(number);
      batch = await this.#batch(number, signal);
    }
    const url = batch.urls.get(pack);
    if (url === undefined) throw new DecantError('HTTP_BODY_INVALID', `The server signed no URL for pack ${pack}.`);
    return url;
  }

  #batch(number: number, signal: AbortSignal | undefined) {
    let batch = this.#batches.get(number);
    if (batch === undefined) {
      batch = this.#sign(number, signal);
      this.#batches.set(number, batch);
      batch.catch(() => this.#batches.delete(number));
    }
    return batch;
  }

  async #sign(number: number, signal: AbortSignal | undefined) {
    const first = number * SIGN_BATCH;
    const count = Math.min(SIGN_BATCH, this.#locator.packs.length - first);
    const packs = Array.from({ length: count }, (_, i) => first + i);
    const answer = await this.#session.client.json(signPacksResponseSchema, 'POST', `${this.#path}/packs/sign`, {
      body: { packs },
      idempotent: true,
      signal,
    });
    return {
      urls: new Map(answer.packs.map(({ pack, url }) => [pack, url])),
      expiresAtMs: Date.parse(answer.expiresAt),
    };
  }
}

/** An answer with what was asked for, or the error that the server described. */
async function fetchPack(fetch: Fetch, url: string, init: RequestInit): Promise<Response> {
  const { signal, ...rest } = init;
  const options = { timeoutMs: RANGE_TIMEOUT_MS, signal: signal ?? undefined };
  const response = await send(fetch, url, rest, options);
  if (response.ok) return response;
  const error = await errorOfResponse(response, options);
  // The image is there, or its locator would not be: what is missing is a part of it.
  if (response.status !== 404) throw error;
  throw new DecantError('CAS_CHUNK_MISSING', 'A pack of the image is not in the store.', { cause: error });
}
