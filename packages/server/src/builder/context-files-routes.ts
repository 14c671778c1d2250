import { createHash, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';

import {
  CONTEXT_FILES_EXPIRE_MS,
  contextIdSchema,
  contextManifestSchema,
  DecantError,
  errnoOf,
  formatBytes,
  isDecantError,
  MAX_CONTEXT_MANIFEST_BYTES,
  type ContextAnswer,
  type ContextManifest,
  type ObjectStore,
} from '@decant/core';
import { namespacePrefix } from '@decant/ingest';
import { Hono } from 'hono';

import { checked, type RouteContext, type ServerEnv } from '../http.ts';
import type { ContextFileStore } from '../metadata/context-file-store.ts';
import { contextManifestKey, digestsOf, loadManifest } from './context-files-archive.ts';
import { readPack } from './context-files-pack.ts';
import type { BuilderLimits } from './limits.ts';

/** Between two looks for contexts that nobody uses any more, in milliseconds. */
const EXPIRY_INTERVAL_MS = 60 * 60 * 1000;

/** Build contexts that are sent as their files: what is missing, and the files themselves. */
export function contextFileRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();
  let expiredAt = -Infinity;

  routes.post('/', async (c) => {
    const { builder, metadata, store } = c.var.services;
    const { namespace } = c.var.principal;
    if (performance.now() - expiredAt > EXPIRY_INTERVAL_MS) {
      expiredAt = performance.now();
      await expireContexts(metadata.contextFiles, store);
    }
    const bytes = await gather(bodyOf(c), MAX_CONTEXT_MANIFEST_BYTES);
    const manifest = checkedManifest(bytes, builder.limits);
    const contextId = createHash('sha256').update(bytes).digest('hex');
    const key = contextManifestKey(namespace, contextId);
    if ((await store.head(key)) === undefined) await store.put(key, bytes);
    await metadata.contextFiles.add(namespace, { key, sizeBytes: bytes.length, files: [] });
    const digests = digestsOf(manifest);
    const there = await metadata.contextFiles.locate(namespace, digests);
    const missing = digests.filter((digest) => !there.has(digest));
    return c.json({ context_id: contextId, missing } satisfies ContextAnswer);
  });

  routes.post('/:id/files', async (c) => {
    const { metadata, store } = c.var.services;
    const { namespace } = c.var.principal;
    const contextId = checked(contextIdSchema, c.req.param('id'), 'The id of the context');
    const manifest = await loadManifest(store, namespace, contextId, c.req.raw.signal);
    const sizes = new Map(
      manifest.entries.flatMap((entry) => (entry.type === 'file' ? [[entry.sha256, entry.size_bytes] as const] : [])),
    );
    const pack = readPack(bodyOf(c), (digest) => sizes.get(digest));
    const key = `${namespacePrefix(namespace)}context-files/${randomUUID()}`;
    const { sizeBytes } = await store.put(key, pack.bytes, { signal: c.req.raw.signal });
    await metadata.contextFiles.add(namespace, { key, sizeBytes, files: pack.files });
    return c.body(null, 204);
  });

  return routes;
}

/** Removes contexts and files that nobody has used for a week. */
async function expireContexts(files: ContextFileStore, store: ObjectStore): Promise<void> {
  for (;;) {
    const keys = await files.expire(CONTEXT_FILES_EXPIRE_MS);
    for (const key of keys) await store.delete(key);
    if (keys.length === 0) return;
  }
}

/** The body without its compression. @throws USAGE for gzip that is broken or cut. */
async function* bodyOf(c: RouteContext): AsyncGenerator<Uint8Array, void> {
  const { body } = c.req.raw;
  if (body === null) return;
  const encoding = c.req.header('content-encoding') ?? 'identity';
  if (encoding === 'identity') {
    yield* body;
    return;
  }
  if (encoding !== 'gzip') {
    throw new DecantError('USAGE', 'The body has a content encoding other than gzip.', { details: { encoding } });
  }
  const source = Readable.fromWeb(body);
  const plain = createGunzip();
  source.on('error', (error) => plain.destroy(error));
  try {
    for await (const piece of source.pipe(plain)) yield piece as Uint8Array;
  } catch (error) {
    if (isDecantError(error) || (errnoOf(error) !== undefined && !isZlibError(error))) throw error;
    throw new DecantError('USAGE', 'The body is not whole: its compression is broken or it was cut.', {
      cause: error,
      retryable: true,
    });
  } finally {
    source.destroy();
    plain.destroy();
  }
}

function isZlibError(error: unknown): boolean {
  return String((error as { code?: unknown }).code).startsWith('Z_');
}

async function gather(source: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of source) {
    length += piece.length;
    if (length > maxBytes) {
      throw new DecantError('LIMIT_EXCEEDED', `The manifest is larger than ${maxBytes} bytes.`, {
        details: { maxBytes },
      });
    }
    pieces.push(piece);
  }
  return Buffer.concat(pieces, length);
}

function checkedManifest(bytes: Uint8Array, limits: BuilderLimits): ContextManifest {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new DecantError('USAGE', 'The manifest is not JSON.', { cause });
  }
  const manifest = checked(contextManifestSchema, value, 'The manifest');
  const { contextFiles, unpackedBytes } = limits;
  if (manifest.entries.length > contextFiles) {
    throw new DecantError('BUILD_CONTEXT_FILES', `The build context has more than ${contextFiles} entries.`, {
      hint: 'Exclude what the build does not need in a .dockerignore file.',
      details: { limit: contextFiles },
    });
  }
  const total = manifest.entries.reduce((sum, entry) => sum + (entry.type === 'file' ? entry.size_bytes : 0), 0);
  if (total > unpackedBytes) {
    throw new DecantError('BUILD_UNPACKED_BYTES', `The build context has more than ${formatBytes(unpackedBytes)}.`, {
      details: { limit: unpackedBytes },
    });
  }
  return manifest;
}
