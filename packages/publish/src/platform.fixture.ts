import { parseManifest, readPackTable, createMemoryRandomAccess, type HashProvider } from '@decant/cas';
import { createZstdCodec, loadNodeHashProvider } from '@decant/cas/node';
import { DecantError, STAGED, type ObjectStore } from '@decant/core';
import { createBlobSigner, createMemoryObjectStore, createObjectGateway } from '@decant/dataplane';
import { createHttpClient, problemResponse } from '@decant/transport';

import type { PublishContext } from './publish-streaming.ts';

/**
 * The other side of a publication: the real signer and gateway over a store in memory, and a platform plane that
 * takes what it is told for admitted.
 */
export interface Platform {
  readonly store: ObjectStore;
  readonly context: PublishContext;
  readonly hash: HashProvider;
  /** Method and path of every request, without queries. */
  readonly requests: string[];
  /** Bytes that arrived in parts. */
  bytesIn: number;
  /** Chunks the namespace has. */
  readonly chunks: Set<string>;
  /** Called before every request; may answer it instead. */
  intercept: (request: Request) => Promise<Response | undefined> | Response | undefined;
}

const ORIGIN = 'http://platform.test';
const credentials = { accessKeyId: 'test', secretAccessKey: 'only here' };

export async function openPlatform(scratchDirectory: string): Promise<Platform> {
  const store = createMemoryObjectStore();
  const hash = await loadNodeHashProvider();
  const signer = createBlobSigner({ store, credentials, region: 'r', bucket: 'b', publicBaseUrl: `${ORIGIN}/objects` });
  const gateway = createObjectGateway({ store, credentials, region: 'r', basePath: '/objects' });
  let builds = 0;
  const manifests = new Map<string, Uint8Array>();

  const answer = async (request: Request): Promise<unknown> => {
    const { pathname } = new URL(request.url);
    if (pathname === '/api/v1/blob/sign') {
      return signer.sign({ namespacePrefix: 'ns/t/', request: (await request.json()) as never });
    }
    if (pathname === '/v1/chunks/missing') {
      const { ids } = (await request.json()) as { ids: string[] };
      return { missing: ids.filter((id) => !platform.chunks.has(id)) };
    }
    if (pathname === '/platform/v1/sandbox-template-builds') {
      const { rootfsFormat, name } = (await request.json()) as { rootfsFormat: string; name: string };
      const prefix = `ns/t/staging/b${++builds}`;
      names.set(`b${builds}`, name);
      return {
        buildId: `b${builds}`,
        snapshotId: 's',
        snapshotRelPath: rootfsFormat === 'ext4' ? `${prefix}/${STAGED.archive}` : prefix,
        rootfsNodeKind: 'base',
        rootfsFormat,
      };
    }
    const named = /^\/v1\/images\/(.+)\/manifest$/.exec(pathname)?.[1];
    if (named !== undefined) {
      const bytes = manifests.get(decodeURIComponent(named));
      if (bytes === undefined) throw new DecantError('NOT_FOUND', 'There is no such image.');
      return bytes;
    }
    const build = /builds\/(b\d+)\/complete$/.exec(pathname)?.[1];
    if (build !== undefined) return admit(build, await request.json());
    throw new DecantError('NOT_FOUND', `Nothing answers ${pathname}.`);
  };

  const names = new Map<string, string>();
  const admit = async (build: string, completion: unknown) => {
    const { snapshotUri, snapshotSizeBytes } = completion as { snapshotUri: string; snapshotSizeBytes: number };
    const staged = await store.get(signer.keyOfUri(snapshotUri));
    const manifest = parseManifest(staged, hash);
    for await (const { key } of store.list(`ns/t/staging/${build}/packs/`)) {
      const table = await readPackTable(createMemoryRandomAccess(await store.get(key)), { hash });
      for (const { id } of table.rows()) platform.chunks.add(id);
    }
    for (const id of manifest.chunkIds()) {
      if (!platform.chunks.has(id)) throw new DecantError('INGEST_CHUNK_UNREACHABLE', `Chunk ${id} is not here.`);
    }
    manifests.set(names.get(build)!, staged);
    return {
      id: build,
      name: names.get(build),
      snapshotId: 's',
      snapshotUri,
      snapshotFormatVersion: 'content_addressed_streaming_v1',
      snapshotSizeBytes,
      rootfsDiskBytes: 0,
      rootfsNodeKind: 'base',
      public: false,
      imageId: manifest.id,
    };
  };

  const fetch: PublishContext['fetch'] = async (input, init) => {
    const request = new Request(input, init);
    request.signal.throwIfAborted();
    const { pathname } = new URL(request.url);
    platform.requests.push(`${request.method} ${pathname}`);
    try {
      const instead = await platform.intercept(request);
      if (instead !== undefined) return instead;
      if (pathname.startsWith('/objects/')) {
        const counted = request.method === 'PUT' ? (await request.clone().arrayBuffer()).byteLength : 0;
        const response = await gateway(request);
        if (response.ok) platform.bytesIn += counted;
        return response;
      }
      const value = await answer(request);
      return value instanceof Uint8Array ? new Response(Uint8Array.from(value)) : Response.json(value);
    } catch (error) {
      if (error instanceof DecantError) return problemResponse(error);
      throw error;
    }
  };
  const platform: Platform = {
    store,
    hash,
    requests: [],
    bytesIn: 0,
    chunks: new Set(),
    intercept: () => undefined,
    context: {
      client: createHttpClient({ baseUrl: ORIGIN, fetch, retry: { attempts: 2, firstDelayMs: 1 } }),
      fetch,
      hash,
      codec: createZstdCodec(),
      scratchDirectory,
    },
  };
  return platform;
}
