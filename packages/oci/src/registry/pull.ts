import { DecantError, isDecantError, quote, retry, type Fetch, type OnEvent } from '@decant/core';
import { readBody, type SendOptions } from '@decant/transport';

import { tooLarge, type BlobName, type BlobSource } from '../blob-source.ts';
import { sha256 } from '../digest.ts';
import type { CredentialLookup } from '../docker-config.ts';
import type { OciImage, OpenImageOptions } from '../image.ts';
import { treeFromIndex, type ImageTree } from '../image-tree.ts';
import { DEFAULT_OCI_LIMITS, type OciLimits } from '../limits.ts';
import {
  DOCKER_INDEX,
  DOCKER_MANIFEST,
  isConfigType,
  isIndexType,
  isManifestType,
  notAnImageHint,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../media-types.ts';
import { openFromIndex } from '../open-image.ts';
import type { MirrorLookup } from '../registries-conf.ts';
import { formatReference, type ImageReference } from '../reference.ts';
import { RepositoryClient } from './client.ts';
import { download } from './download.ts';
import { FetchedLayers } from './fetch-layers.ts';

export interface RegistryOptions {
  readonly fetch: Fetch;
  /** Default: none, which is enough for what anyone may read. */
  readonly credentials?: CredentialLookup | undefined;
}

export interface OpenRegistryImageOptions extends RegistryOptions, Omit<OpenImageOptions, 'tag'> {
  /**
   * Says where to ask, for example {@link containersMirrors}; default: the registry alone. A mirror without the
   * image, or that does not answer, is passed over. It is believed about tags, as all engines do.
   */
  readonly mirrors?: MirrorLookup | undefined;
  /** Given, layers are downloaded once into files here, several at a time; else each read downloads anew. */
  readonly scratchDirectory?: string | undefined;
  /** Layers downloaded at a time; default 4. */
  readonly parallel?: number | undefined;
  readonly onEvent?: OnEvent | undefined;
}

const ACCEPT = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(', ');
const DOCKER_SCHEMA_1 = 'application/vnd.docker.distribution.manifest.v1+json';
/** How long a mirror may take to answer before the next place is asked, in milliseconds. */
const MIRROR_TIMEOUT_MS = 10_000;
/** Most bytes of documents that are kept, so that they are fetched once only. */
const KEPT_BYTES = 16 * 1024 * 1024;

/**
 * Opens an image in a registry. Its documents are fetched and checked now, its layers when they are read; a cut
 * download is resumed. Plain http is used with registries on this machine, https with all others.
 * @throws NOT_FOUND, UNAUTHORIZED, FORBIDDEN, HTTP_…, TIMEOUT, OCI_PLATFORM_MISSING, OCI_INVALID,
 * OCI_DIGEST_MISMATCH, OCI_UNSUPPORTED, LIMIT_EXCEEDED.
 */
export async function openRegistryImage(
  reference: ImageReference,
  options: OpenRegistryImageOptions,
): Promise<OciImage> {
  const limits = { ...DEFAULT_OCI_LIMITS, ...options.limits };
  const { client, top } = await resolve(reference, limits, options);
  const kept = new Map<string, Uint8Array>([[top.descriptor.digest, top.bytes]]);
  const documents = documentSource(client, kept, limits);
  const index = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, manifests: [top.descriptor] }));
  const opened: { layers?: FetchedLayers } = {};
  const source: BlobSource = {
    sizeOf: ({ size }) => Promise.resolve(size),
    read: (blob, readOptions) => opened.layers?.read(blob, readOptions) ?? documents(blob, readOptions),
  };
  const image = await openFromIndex(source, index, limits, options, async () => {
    await opened.layers?.[Symbol.asyncDispose]();
  });
  if (options.scratchDirectory !== undefined) {
    const { scratchDirectory: directory, parallel = 4, onEvent } = options;
    const names = image.layers.map(({ digest, sizeBytes: size, mediaType }) => ({ digest, size, mediaType }));
    opened.layers = new FetchedLayers(names, {
      directory,
      parallel,
      onEvent,
      download: (blob, readOptions) => download(client, blob, readOptions),
    });
  }
  return { ...image, ...namesOf(reference) };
}

/**
 * All that a reference names, to be copied as it is: blobs are downloaded as they are read.
 * @throws as {@link openRegistryImage}
 */
export async function openRegistryTree(
  reference: ImageReference,
  options: Omit<OpenRegistryImageOptions, 'platform' | 'scratchDirectory' | 'parallel' | 'onEvent'>,
): Promise<ImageTree> {
  const limits = { ...DEFAULT_OCI_LIMITS, ...options.limits };
  const { client, top } = await resolve(reference, limits, options);
  const kept = new Map<string, Uint8Array>([[top.descriptor.digest, top.bytes]]);
  const source: BlobSource = {
    sizeOf: ({ size }) => Promise.resolve(size),
    read: documentSource(client, kept, limits),
  };
  const index = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, manifests: [top.descriptor] }));
  const tree = await treeFromIndex(source, index, limits, { signal: options.signal }, () => Promise.resolve());
  return { ...tree, ...namesOf(reference) };
}

function namesOf(reference: ImageReference): { readonly reference: string; readonly tags: readonly string[] } {
  return {
    reference: formatReference(reference),
    tags: reference.tag === undefined ? [] : [formatReference({ ...reference, digest: undefined })],
  };
}

/** Documents as they come, the small ones kept; layers pass through. */
function documentSource(
  client: RepositoryClient,
  kept: Map<string, Uint8Array>,
  limits: OciLimits,
): BlobSource['read'] {
  let keptBytes = 0;
  return async function* read(blob, readOptions) {
    const known = kept.get(blob.digest);
    if (known !== undefined) {
      yield known;
      return;
    }
    const { mediaType, size } = blob;
    const isDocument = isIndexType(mediaType) || isManifestType(mediaType) || isConfigType(mediaType);
    if (!isDocument || size > limits.documentBytes) {
      yield* download(client, blob, readOptions);
      return;
    }
    const pieces: Uint8Array[] = [];
    for await (const piece of download(client, blob, readOptions)) pieces.push(piece);
    const bytes = Buffer.concat(pieces);
    keptBytes += bytes.length;
    if (keptBytes <= KEPT_BYTES && sha256(bytes) === blob.digest) kept.set(blob.digest, bytes);
    yield bytes;
  };
}

interface Resolved {
  readonly client: RepositoryClient;
  readonly top: { readonly descriptor: BlobName; readonly bytes: Uint8Array };
}

/** The manifest or index that a reference names, from the first mirror that has it, else from the registry. */
async function resolve(
  reference: ImageReference,
  limits: OciLimits,
  options: Pick<OpenRegistryImageOptions, 'fetch' | 'credentials' | 'mirrors' | 'signal'>,
): Promise<Resolved> {
  const { fetch, credentials, signal } = options;
  const places = (await options.mirrors?.(reference)) ?? [reference];
  for (const [i, place] of places.entries()) {
    const client = new RepositoryClient({ reference: place, fetch, credentials, access: 'pull' });
    const isLast = i === places.length - 1;
    try {
      const ask = () => fetchTop(client, place, limits, { timeoutMs: isLast ? undefined : MIRROR_TIMEOUT_MS, signal });
      return { client, top: await retry(ask, { attempts: isLast ? 3 : 1, signal }) };
    } catch (error) {
      signal?.throwIfAborted();
      if (isLast || !isDecantError(error)) throw error;
    }
  }
  throw new DecantError('INTERNAL', 'There was no registry to ask.');
}

async function fetchTop(
  client: RepositoryClient,
  reference: ImageReference,
  limits: OciLimits,
  { timeoutMs, signal }: SendOptions,
): Promise<Resolved['top']> {
  const name = formatReference(reference);
  const response = await client.request('GET', client.url(`manifests/${reference.digest ?? reference.tag!}`), {
    headers: { accept: ACCEPT, 'accept-encoding': 'identity' },
    expect: [200],
    what: `the image ${name}`,
    timeoutMs,
    signal,
  });
  const bytes = await readBody(response, limits.documentBytes, { timeoutMs, signal });
  const digest = sha256(bytes);
  const declared = reference.digest ?? response.headers.get('docker-content-digest') ?? digest;
  if (declared.startsWith('sha256:') && declared !== digest) {
    throw new DecantError(
      'OCI_DIGEST_MISMATCH',
      `The manifest of ${name} hashes to ${digest} and not to ${declared}.`,
      {
        details: { expected: declared, found: digest },
      },
    );
  }
  if (bytes.length > limits.documentBytes)
    throw tooLarge(`The manifest of ${name}`, bytes.length, limits.documentBytes);
  const mediaType = mediaTypeOf(response, bytes);
  if (!isIndexType(mediaType) && !isManifestType(mediaType)) {
    throw new DecantError('OCI_UNSUPPORTED', `What ${name} names is no image that can be read (${quote(mediaType)}).`, {
      details: { mediaType },
      hint: notAnImageHint(mediaType),
    });
  }
  return { descriptor: { digest, size: bytes.length, mediaType }, bytes };
}

/**
 * What the registry calls a document; else what it calls itself; else what it looks like, since a plain file server has no
 * types for manifests and OCI's need not name theirs.
 */
function mediaTypeOf(response: Response, bytes: Uint8Array): string {
  const header = (response.headers.get('content-type') ?? '').split(';')[0]!.trim();
  if (isIndexType(header) || isManifestType(header)) return header;
  try {
    const document = JSON.parse(new TextDecoder().decode(bytes)) as Readonly<Record<string, unknown>> | null;
    const { mediaType, schemaVersion, manifests, config } = document ?? {};
    if (typeof mediaType === 'string' && mediaType !== '') return mediaType;
    if (schemaVersion !== 2) return schemaVersion === 1 ? DOCKER_SCHEMA_1 : header;
    if (Array.isArray(manifests)) return OCI_INDEX;
    return typeof config === 'object' && config !== null ? OCI_MANIFEST : header;
  } catch {
    return header;
  }
}
