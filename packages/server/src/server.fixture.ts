import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createManifestBuilder, createPackBuilder, type Manifest } from '@decant/cas';
import { createZstdCodec, loadNodeHashProvider } from '@decant/cas/node';
import { parseNamespace, STAGED, toHex, type ChunkId, type DecantError, type PrepareResponse } from '@decant/core';
import { blobPartSource, uploadArtifact } from '@decant/dataplane';
import { createHttpClient } from '@decant/transport';

import { createApiKey } from './auth.ts';
import { openServer, type OpenOptions, type OpenServer } from './open.ts';

/** A server on a directory of its own, and callers with and without keys. */
export interface TestServer extends AsyncDisposable {
  readonly directory: string;
  readonly server: OpenServer;
  readonly errors: DecantError[];
  /** A caller with a key of a namespace; null sends no key. */
  caller(namespace: string | null): Promise<Caller>;
}

export interface Caller {
  readonly key: string | undefined;
  call(method: string, path: string, body?: unknown): Promise<{ status: number; type: string | null; body: any }>;
  readonly fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>;
  prepare(request?: object): Promise<PrepareResponse>;
  upload(build: PrepareResponse, name: string, bytes: Uint8Array): Promise<string>;
  /** Prepares, stages and completes an image of these chunks; the answer of the completion, once it has ended. */
  push(chunks: readonly Uint8Array[], name: string): Promise<{ manifest: Manifest; status: number; body: any }>;
  poll(buildId: string): Promise<any>;
}

const ORIGIN = 'http://server.test';

export async function openTestServer(options: Pick<OpenOptions, 'builder'> = {}): Promise<TestServer> {
  const directory = await mkdtemp(join(tmpdir(), 'server-test-'));
  const errors: DecantError[] = [];
  const server = await openServer({ ...options, dataDirectory: directory, onError: (error) => errors.push(error) });
  return {
    directory,
    server,
    errors,
    async caller(namespace) {
      const key = namespace === null ? undefined : (await createApiKey(server.metadata, parseNamespace(namespace))).key;
      return callerOf(server, key);
    },
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export function callerOf(server: OpenServer, key: string | undefined): Caller {
  const fetch: Caller['fetch'] = (input, init) => server.handle(new Request(input, init));
  const client = createHttpClient({ baseUrl: ORIGIN, fetch, token: key });
  const call: Caller['call'] = async (method, path, body) => {
    const response = await fetch(`${ORIGIN}${path}`, {
      method,
      headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    const type = response.headers.get('content-type');
    return { status: response.status, type, body: type?.includes('json') === true ? JSON.parse(text) : text };
  };
  const prepare: Caller['prepare'] = async (request = {}) =>
    (
      await call('POST', '/platform/v1/sandbox-template-builds', {
        name: 'app',
        rootfsFormat: 'cas-streaming',
        ...request,
      })
    ).body as PrepareResponse;
  const upload: Caller['upload'] = async (build, name, bytes) =>
    (
      await uploadArtifact({
        client,
        fetch,
        relPath: `${build.snapshotRelPath}/${name}`,
        source: blobPartSource(Uint8Array.from(bytes)),
      })
    ).uri;
  const poll: Caller['poll'] = async (buildId) => {
    for (let i = 0; i < 600; i++) {
      const { body } = await call('GET', `/platform/v1/sandbox-template-builds/${buildId}`);
      if (body.status !== 'ingesting' && body.status !== 'prepared') return body;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error('the admission did not end');
  };
  return {
    key,
    fetch,
    call,
    prepare,
    upload,
    poll,
    async push(chunks, name) {
      const build = await prepare({ name });
      const { manifest, pack } = await stagedImage(chunks);
      await upload(build, `${STAGED.packs}/000000`, pack);
      const uri = await upload(build, STAGED.manifest, manifest.bytes);
      const answer = await call(
        'POST',
        `/platform/v1/sandbox-template-builds/${build.buildId}/complete`,
        completionOf(build, uri, manifest.virtualBytes),
      );
      return { manifest, status: answer.status, body: answer.status === 202 ? await poll(build.buildId) : answer.body };
    },
  };
}

export function completionOf(build: PrepareResponse, uri: string, bytes: number, change: object = {}): object {
  return {
    snapshotId: build.snapshotId,
    snapshotUri: uri,
    snapshotFormatVersion: 'content_addressed_streaming_v1',
    snapshotSizeBytes: bytes,
    rootfsDiskBytes: 0,
    rootfsNodeKind: 'base',
    ...change,
  };
}

/** The manifest and the one pack of a raw image of these chunks. */
export async function stagedImage(chunks: readonly Uint8Array[]): Promise<{ manifest: Manifest; pack: Uint8Array }> {
  const hash = await loadNodeHashProvider();
  const codec = createZstdCodec();
  const manifest = createManifestBuilder(
    { format: 'raw', layout: 'foreign', architecture: null, configDigest: new Uint8Array(32) },
    hash,
  );
  const pack = createPackBuilder({ hash });
  const parts: Uint8Array[] = [];
  for (const plain of chunks) {
    const id = toHex(hash.blake3(plain)) as ChunkId;
    manifest.add({ type: 'chunk', id, bytes: plain });
    const { encoding, stored } = codec.encode(plain);
    parts.push(...pack.add({ id, encoding, plainBytes: plain.length, stored }).map((part) => part.slice()));
  }
  return { manifest: manifest.finish(), pack: Buffer.concat([...parts, pack.finish().bytes]) };
}

export const chunkOf = (fill: number, pages = 4): Uint8Array => new Uint8Array(pages * 4096).fill(fill);
