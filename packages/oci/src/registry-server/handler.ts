import { GIB, isDecantError, MIB, type ObjectStore } from '@decant/core';

import { isRepositoryName } from '../reference.ts';
import { errorResponse, jsonResponse, RegistryProblem } from './answers.ts';
import { getBlob, needBlob, type BlobPlace } from './blobs.ts';
import { RegistryCollector, type CollectRegistryOptions, type RegistryCollection } from './collect.ts';
import { DigestUse } from './digest-use.ts';
import { RegistryKeys } from './keys.ts';
import { checkDigest, Manifests } from './manifests.ts';
import { actionOf, parseRoute, type RegistryAction } from './route.ts';
import { rangeHeader, readLimited, Uploads } from './uploads.ts';

/** Bounds on what clients may send. */
export interface RegistryLimits {
  /** Most bytes of a blob; default 32 GiB. */
  readonly blobBytes: number;
  /** Most bytes of a manifest or index; default 4 MiB. */
  readonly manifestBytes: number;
  /** Most unfinished uploads of one repository; default 1,000. */
  readonly openUploads: number;
  /** Age after which an unfinished upload is removed, in milliseconds; default a day. */
  readonly uploadAgeMs: number;
}

export const DEFAULT_REGISTRY_LIMITS: RegistryLimits = {
  blobBytes: 32 * GIB,
  manifestBytes: 4 * MIB,
  openUploads: 1000,
  uploadAgeMs: 24 * 60 * 60 * 1000,
};

/** `unauthenticated` is answered with 401 and the challenge, `deny` with 403, `hide` with 404 as if there were nothing. */
export type RegistryVerdict = 'allow' | 'unauthenticated' | 'deny' | 'hide';

export interface RegistryHandlerOptions {
  readonly store: ObjectStore;
  /** Where in the store the registry keeps its objects; default `registry/`. One registry per prefix. */
  readonly prefix?: string | undefined;
  /**
   * Asked before anything is read. `repository` is undefined for the question whether one may come in at all.
   * Default: everybody may do everything.
   */
  readonly authorize?:
    | ((request: Request, repository: string | undefined, action: RegistryAction) => Promise<RegistryVerdict>)
    | undefined;
  /** `WWW-Authenticate` of the answer 401; default `Basic realm="decant"`. */
  readonly challenge?: string | undefined;
  readonly limits?: Partial<RegistryLimits> | undefined;
  /** Told what is behind an answer of 500 or above, which does not say it. */
  readonly onError?: ((error: unknown, request: Request) => void) | undefined;
}

export type RegistryHandler = (request: Request) => Promise<Response>;

/** A registry: what answers its clients, and what removes the bytes nothing needs any more. */
export interface Registry {
  readonly handle: RegistryHandler;
  /**
   * Takes blobs that no manifest names out of their repositories, and removes the bytes of those that no repository has,
   * once both was so for the grace period. Pushes may go on meanwhile, through this registry and others on the same store:
   * they lose nothing. Also removes uploads that were given up.
   */
  collect(options?: CollectRegistryOptions): Promise<RegistryCollection>;
}

interface Call {
  readonly request: Request;
  readonly url: URL;
  readonly repository: string;
  /** What follows the kind of thing: a digest, a tag, the id of an upload. */
  readonly rest: string;
  readonly signal: AbortSignal;
}

const API_VERSION = { 'docker-distribution-api-version': 'registry/2.0' };

/**
 * A registry on an object store, as a handler of web requests below `/v2/`: pull, push, uploads in chunks,
 * mounting blobs from another repository, tags, referrers and deleting, as in the OCI distribution specification
 * 1.1; there is no catalogue. A blob can be read once its digest has been checked, a manifest once everything it
 * names is there. Deleting takes things out of a repository; the bytes of blobs go with a collection.
 */
export function createRegistry(options: RegistryHandlerOptions): Registry {
  const limits = { ...DEFAULT_REGISTRY_LIMITS, ...options.limits };
  const keys = new RegistryKeys(options.prefix ?? 'registry/');
  const use = new DigestUse(options.store, keys);
  const place: BlobPlace = { store: options.store, keys, use };
  const uploads = new Uploads(options.store, keys, limits, use);
  const manifests = new Manifests(options.store, keys);
  const collector = new RegistryCollector({ store: options.store, keys, manifests, uploads, use });

  const verdictOn = async (request: Request, repository: string | undefined, action: RegistryAction) =>
    (await options.authorize?.(request, repository, action)) ?? 'allow';
  const authorize = async (request: Request, repository: string | undefined, action: RegistryAction) => {
    const verdict = await verdictOn(request, repository, action);
    if (verdict === 'unauthenticated') {
      const challenge = { 'www-authenticate': options.challenge ?? 'Basic realm="decant"' };
      throw new RegistryProblem('UNAUTHORIZED', 'Authentication is needed.', challenge);
    }
    if (verdict === 'deny') throw new RegistryProblem('DENIED', 'That is not allowed.');
    if (verdict === 'hide') throw new RegistryProblem('NAME_UNKNOWN', 'There is no such repository.');
  };

  const manifestCall = async ({ request, repository, rest, signal }: Call): Promise<Response> => {
    switch (request.method) {
      case 'GET':
      case 'HEAD': {
        const { mediaType, digest, bytes } = await manifests.get(repository, rest, signal);
        const headers = {
          'content-type': mediaType,
          'content-length': String(bytes.length),
          'docker-content-digest': digest,
          etag: `"${digest}"`,
        };
        return new Response(request.method === 'HEAD' ? null : new Uint8Array(bytes), { headers });
      }
      case 'PUT': {
        const mediaType = (request.headers.get('content-type') ?? '').split(';')[0]!.trim();
        const bytes = await readLimited(request.body, limits.manifestBytes);
        const { digest, subject } = await manifests.put(repository, rest, mediaType, bytes, signal);
        return created(
          `/v2/${repository}/manifests/${digest}`,
          digest,
          subject === undefined ? {} : { 'oci-subject': subject },
        );
      }
      case 'DELETE':
        await manifests.delete(repository, rest, signal);
        return new Response(null, { status: 202 });
      default:
        throw unsupported();
    }
  };

  const blobCall = async ({ request, repository, rest, signal }: Call): Promise<Response> => {
    const digest = checkDigest(rest);
    if (request.method === 'GET' || request.method === 'HEAD') return getBlob(place, repository, digest, request);
    if (request.method !== 'DELETE') throw unsupported();
    const link = keys.link(repository, digest);
    if ((await options.store.head(link, { signal })) === undefined) {
      throw new RegistryProblem('BLOB_UNKNOWN', `There is no blob ${digest}.`);
    }
    await options.store.delete(link, { signal });
    return new Response(null, { status: 202 });
  };

  const mountBlob = (from: string, digest: string, repository: string, signal: AbortSignal) =>
    use.using(digest, async () => {
      const known = await options.store.head(keys.link(from, digest), { signal });
      if (known === undefined || (await options.store.head(keys.blob(digest), { signal })) === undefined) return false;
      await options.store.put(keys.link(repository, digest), new Uint8Array(), { signal });
      await needBlob(options.store, keys, repository, digest, signal);
      return true;
    });

  const beginUpload = async ({ request, url, repository, signal }: Call): Promise<Response> => {
    const [mount, from, digest] = ['mount', 'from', 'digest'].map((name) => url.searchParams.get(name));
    // Whoever may not read there gets what a repository without the blob gives: an upload.
    if (mount && from && isRepositoryName(from) && (await verdictOn(request, from, 'pull')) === 'allow') {
      if (await mountBlob(from, checkDigest(mount), repository, signal)) {
        return created(`/v2/${repository}/blobs/${mount}`, mount);
      }
    }
    if (!digest) return progress(202, repository, await uploads.begin(repository, signal), 0);
    checkDigest(digest);
    const id = await uploads.begin(repository, signal);
    try {
      await uploads.finish(repository, id, request.body, digest, signal);
    } catch (error) {
      // Nobody was told its id, so nobody will go on with it; also when the client has gone.
      await uploads.cancel(repository, id, new AbortController().signal).catch(() => undefined);
      throw error;
    }
    return created(`/v2/${repository}/blobs/${digest}`, digest);
  };

  const uploadCall = async (call: Call): Promise<Response> => {
    const { request, url, repository, rest: id, signal } = call;
    switch (request.method) {
      case 'POST':
        if (id !== '') throw unsupported();
        return beginUpload(call);
      case 'GET':
        return progress(204, repository, id, await uploads.offset(repository, id, signal));
      case 'PATCH': {
        const start = startOf(request.headers.get('content-range'));
        return progress(202, repository, id, await uploads.append(repository, id, request.body, start, signal));
      }
      case 'PUT': {
        const digest = checkDigest(url.searchParams.get('digest') ?? '');
        const start = startOf(request.headers.get('content-range'));
        if (start !== undefined && start !== (await uploads.offset(repository, id, signal))) {
          throw new RegistryProblem('RANGE_INVALID', 'The last chunk does not begin where the upload stands.');
        }
        await uploads.finish(repository, id, request.body, digest, signal);
        return created(`/v2/${repository}/blobs/${digest}`, digest);
      }
      case 'DELETE':
        await uploads.cancel(repository, id, signal);
        return new Response(null, { status: 204 });
      default:
        throw unsupported();
    }
  };

  const tagsCall = async ({ request, url, repository, signal }: Call): Promise<Response> => {
    if (request.method !== 'GET') throw unsupported();
    const all = await manifests.tags(repository, signal);
    if (all.length === 0) throw new RegistryProblem('NAME_UNKNOWN', 'The repository has no tags.');
    const last = url.searchParams.get('last');
    const count = url.searchParams.get('n');
    const rest = last === null ? all : all.filter((tag) => tag > last);
    const tags = count === null || !/^\d{1,9}$/.test(count) ? rest : rest.slice(0, Number(count));
    const more = tags.length > 0 && tags.length < rest.length;
    const next = more
      ? `</v2/${repository}/tags/list?n=${count}&last=${encodeURIComponent(tags.at(-1)!)}>; rel="next"`
      : '';
    return jsonResponse({ name: repository, tags }, { headers: more ? { link: next } : {} });
  };

  const referrersCall = async ({ request, url, repository, rest, signal }: Call): Promise<Response> => {
    if (request.method !== 'GET') throw unsupported();
    const type = url.searchParams.get('artifactType');
    const index = await manifests.referrers(repository, rest, type, signal);
    const headers: Record<string, string> = type === null ? {} : { 'oci-filters-applied': 'artifactType' };
    return jsonResponse(index, { mediaType: 'application/vnd.oci.image.index.v1+json', headers });
  };

  const dispatch = async (request: Request): Promise<Response> => {
    const url = new URL(request.url);
    if (url.pathname === '/v2/' || url.pathname === '/v2') {
      await authorize(request, undefined, 'pull');
      return jsonResponse({});
    }
    const route = parseRoute(url.pathname);
    if (route === undefined) return errorResponse(404, 'NAME_UNKNOWN', 'There is nothing here.');
    const call: Call = { request, url, repository: route.repository, rest: route.rest, signal: request.signal };
    await authorize(request, route.repository, actionOf(request.method, route.kind));
    switch (route.kind) {
      case 'manifests':
        return manifestCall(call);
      case 'uploads':
        return uploadCall(call);
      case 'blobs':
        return blobCall(call);
      case 'tags':
        return tagsCall(call);
      default:
        return referrersCall(call);
    }
  };

  const handle: RegistryHandler = async (request) => {
    let response: Response;
    try {
      response = await dispatch(request);
    } catch (error) {
      request.signal.throwIfAborted();
      response = failureResponse(error);
      if (response.status >= 500) options.onError?.(error, request);
    }
    for (const [name, value] of Object.entries(API_VERSION)) response.headers.set(name, value);
    return response;
  };
  return { handle, collect: (collection) => collector.collect(collection) };
}

/** The answering half of {@link createRegistry}. */
export function createRegistryHandler(options: RegistryHandlerOptions): RegistryHandler {
  return createRegistry(options).handle;
}

function failureResponse(error: unknown): Response {
  if (error instanceof RegistryProblem) return error.toResponse();
  if (isDecantError(error, 'DISK_FULL')) return errorResponse(507, 'UNKNOWN', 'The registry has no space left.');
  if (isDecantError(error) && error.retryable) return errorResponse(503, 'UNKNOWN', 'The registry cannot answer now.');
  // What went wrong inside is not for clients to see.
  return errorResponse(500, 'UNKNOWN', 'The registry failed.');
}

function created(location: string, digest: string, more: Readonly<Record<string, string>> = {}): Response {
  return new Response(null, {
    status: 201,
    headers: { location, 'docker-content-digest': digest, 'content-length': '0', ...more },
  });
}

function progress(status: 202 | 204, repository: string, id: string, offset: number): Response {
  const headers: Record<string, string> = {
    location: `/v2/${repository}/blobs/uploads/${id}`,
    'docker-upload-uuid': id,
    ...rangeHeader(offset),
  };
  if (status === 202) headers['content-length'] = '0';
  return new Response(null, { status, headers });
}

function startOf(contentRange: string | null): number | undefined {
  if (contentRange === null) return undefined;
  const [, start] = /^(?:bytes )?(\d{1,15})-\d{1,15}(?:\/.*)?$/.exec(contentRange) ?? [];
  if (start === undefined) throw new RegistryProblem('RANGE_INVALID', 'The Content-Range cannot be read.');
  return Number(start);
}

function unsupported(): RegistryProblem {
  return new RegistryProblem('UNSUPPORTED', 'That method is not supported here.');
}
