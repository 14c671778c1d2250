import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { createNodeFetch } from '@decant/transport/node';
import { createZstdCodec, loadNodeHashProvider } from '@decant/cas/node';
import { DecantError, quote, Scope, type Fetch } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import { isStagingKey } from '@decant/ingest';
import { createBlobSigner, createFileObjectStore, createObjectGateway } from '@decant/dataplane';

import { createApp } from './app.ts';
import { startImageBuilder } from './builder/image-builder.ts';
import { DEFAULT_BUILDER_LIMITS, type BuilderLimits } from './builder/limits.ts';
import { createImageSources, DEFAULT_BASE_REGISTRIES, type ImageSources } from './builder/image-sources.ts';
import { createLocalRegistry } from './builder/local-registry.ts';
import { isolatedRunner } from './builder/isolated-runner.ts';
import { localRunner } from './builder/local-runner.ts';
import type { BuildRunner } from './builder/runner.ts';
import { SYSTEM_CLOCK, type BuildClock } from './builder/watchdog.ts';
import { DEFAULT_NAMESPACE, OPERATOR } from './auth.ts';
import { openSqliteMetadata } from './metadata/sqlite-store.ts';
import type { BuildTrust } from './metadata/image-build-store.ts';
import type { MetadataStore } from './metadata/store.ts';
import { startRegistryMaintenance } from './registry/maintain.ts';
import { createRegistry } from './registry/registry.ts';
import type { RegistryOptions } from './registry/registry-settings.ts';
import { EMBEDDED_HOST, OBJECTS_PATH, type Services } from './services.ts';
import { createSnapshotRegistrar } from './snapshots/register.ts';
import { checkChunks } from './repair.ts';
import { startWorker } from './worker.ts';

export interface OpenOptions {
  /** Holds the metadata and the objects; created when absent, readable by its owner only. */
  readonly dataDirectory: string;
  readonly onError?: ((error: DecantError) => void) | undefined;
  readonly builder?: BuilderOptions | undefined;
  /** Bounds on what clients may send to the registry, and how long what nothing needs stays there. */
  readonly registry?: RegistryOptions | undefined;
  /** Origins of web pages that may call this server with a key, such as `https://app.example`; default none. */
  readonly allowOrigins?: readonly string[] | undefined;
  /**
   * Where callers reach the server, as an origin such as `https://decant.example`, when a proxy stands before it: signed
   * URLs and names of images are made with it. Default: what each request says.
   */
  readonly publicUrl?: string | undefined;
}

export interface BuilderOptions {
  readonly limits?: Partial<BuilderLimits> | undefined;
  /**
   * Whose builds this process runs: the operator's on an engine of this machine, those of others confined. Default: the
   * operator's, who is the only caller of an embedded server.
   */
  readonly builds?: BuildTrust | undefined;
  readonly clock?: BuildClock | undefined;
  /** Hosts of registries that public images are pulled from; default the well-known ones. */
  readonly baseRegistries?: readonly string[] | undefined;
}

/** The services of one data directory, running. Several processes may have the same directory open. */
export interface OpenServer extends AsyncDisposable {
  readonly metadata: MetadataStore;
  /** Answers a request; `operator` is for callers in this process only. */
  readonly handle: (request: Request, caller?: 'operator') => Promise<Response>;
}

const REGION = 'local';
const BUCKET = 'decant';
/** How often a process looks for jobs that another one left, in milliseconds. */
const IDLE_MS = 2000;
/** How long a claimed build waits for a worker that was killed, in milliseconds. */
const BUILD_LEASE_MS = 15_000;

export async function openServer(options: OpenOptions): Promise<OpenServer> {
  const { dataDirectory, onError } = options;
  const publicOrigin = options.publicUrl === undefined ? undefined : parsePublicUrl(options.publicUrl);
  await using scope = new Scope();
  const scratch = scope.use(
    await openScratchDirectory(join(dataDirectory, 'scratch')).catch((error: unknown) => {
      throw new DecantError('CONFIG_INVALID', `The data directory ${dataDirectory} cannot be used.`, {
        hint: 'Point DECANT_HOME at a directory that this user can write to.',
        cause: error,
      });
    }),
  );
  const metadata = scope.use(await openSqliteMetadata(join(dataDirectory, 'metadata.sqlite')));
  await metadata.keys.ensureNamespace(DEFAULT_NAMESPACE);
  const store = createFileObjectStore({
    directory: join(dataDirectory, 'objects'),
    // What is staged is verified before anything is made of it, and may be staged again.
    fsync: (key) => !isStagingKey(key),
  });
  const credentials = {
    accessKeyId: 'DECANTLOCAL',
    secretAccessKey: await metadata.setting('object-signing-secret', () => randomBytes(32).toString('base64url')),
  };
  let hash: ReturnType<typeof loadNodeHashProvider> | undefined;
  const repairs = { metadata, store, hash: () => (hash ??= loadNodeHashProvider()), codec: createZstdCodec() };
  const worker = scope.use(
    startWorker({
      ...repairs,
      scratchDirectory: scratch.path,
      idleMs: IDLE_MS,
      onError,
    }),
  );
  const mounted = createRegistry({ metadata, store }, { limits: options.registry?.limits, onError });
  const { graceMs } = options.registry ?? {};
  scope.use(startRegistryMaintenance({ metadata, store, registry: mounted, graceMs, onError }));
  const registry = createLocalRegistry(mounted);
  const http = createNodeFetch();
  scope.defer(() => http.close());
  const sources = createImageSources({
    registry,
    fetch: http.fetch,
    baseRegistries: options.builder?.baseRegistries ?? DEFAULT_BASE_REGISTRIES,
  });
  const registrar = createSnapshotRegistrar({
    metadata,
    sources,
    fetchAs: (namespace) => async (input, init) =>
      app.fetch(new Request(input, init), { operator: { namespace, operator: false, keyId: null } }),
    hash: () => (hash ??= loadNodeHashProvider()),
    codec: createZstdCodec(),
    scratchDirectory: scratch.path,
  });
  const limits = { ...DEFAULT_BUILDER_LIMITS, ...options.builder?.limits };
  const builder = scope.use(
    startImageBuilder({
      metadata,
      store,
      registry,
      runners: runnersOf(options, sources, limits),
      limits,
      clock: options.builder?.clock ?? SYSTEM_CLOCK,
      scratchDirectory: scratch.path,
      idleMs: IDLE_MS,
      leaseMs: BUILD_LEASE_MS,
      onError,
    }),
  );
  const services: Services = {
    registry: mounted,
    builder,
    registrar,
    metadata,
    store,
    signerFor: (origin) =>
      createBlobSigner({
        store,
        credentials,
        region: REGION,
        bucket: BUCKET,
        publicBaseUrl: `${origin}${OBJECTS_PATH}`,
      }),
    publicOrigin,
    gateway: createObjectGateway({ store, credentials, region: REGION, basePath: OBJECTS_PATH, publicOrigin }),
    checkChunks: (namespace, image, ids) => checkChunks(namespace, image, ids, repairs),
    poke: () => worker.poke(),
  };
  const app = createApp(services, { onError, allowOrigins: options.allowOrigins, registryGraceMs: graceMs });
  const resources = scope.move();
  return {
    metadata,
    handle: async (request, caller) => app.fetch(request, caller === 'operator' ? { operator: OPERATOR } : {}),
    [Symbol.asyncDispose]: () => resources[Symbol.asyncDispose](),
  };
}

/** @throws CONFIG_INVALID for what is no origin: paths cannot be had, because registries lie at the root of a host. */
function parsePublicUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && /^https?:$/.test(url.protocol) && url.href === `${url.origin}/`) return url.origin;
  throw new DecantError('CONFIG_INVALID', `Not the URL of a host: ${quote(text)}.`, {
    hint: 'Give a scheme and a host, with a port where it needs one, such as https://decant.example, and no path.',
  });
}

function runnersOf(
  { builder, dataDirectory }: OpenOptions,
  sources: ImageSources,
  limits: BuilderLimits,
): Partial<Record<BuildTrust, BuildRunner>> {
  if (builder?.builds !== 'tenant') return { operator: localRunner() };
  return { tenant: isolatedRunner({ sources, limits, directory: join(dataDirectory, 'build-volumes') }) };
}

/** An embedded server: its handler as a `fetch`, for whoever holds the data directory. */
export interface EmbeddedServer extends AsyncDisposable {
  readonly fetch: Fetch;
  readonly baseUrl: string;
}

const EMBEDDED_URL = `http://${EMBEDDED_HOST}`;

export async function openEmbeddedServer(options: OpenOptions): Promise<EmbeddedServer> {
  const server = await openServer(options);
  const fetch: Fetch = async (input, init) => {
    const request = new Request(input, init);
    if (new URL(request.url).origin !== EMBEDDED_URL) {
      throw new TypeError(`the embedded server does not answer ${new URL(request.url).origin}`);
    }
    request.signal.throwIfAborted();
    return server.handle(request, 'operator');
  };
  return { fetch, baseUrl: EMBEDDED_URL, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}
