import {
  checkChunksRequestSchema,
  DecantError,
  imageConfigSchema,
  isImageId,
  isStreamingImageId,
  missingChunksRequestSchema,
  parseChunkId,
  parseImageId,
  parseImageName,
  signPacksRequestSchema,
  type ImageConfig,
  type ImageDetail,
  type ImageId,
  type Namespace,
} from '@decant/core';
import { parseLocator } from '@decant/cas';
import { archiveKey, configKey, locatorKey, manifestKey } from '@decant/ingest';
import { Hono } from 'hono';

import { bytesResponse, jsonBody, originSigner, type RouteContext, type ServerEnv } from '../http.ts';
import type { ImageRow } from '../metadata/store.ts';
import type { Services } from '../services.ts';

/** Most bytes of a configuration document. */
const MAX_CONFIG_BYTES = 1024 * 1024;

/** Images by name or id, and the read plane of those that stream. Names and ids stand percent-encoded in paths. */
export function imageRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();

  routes.get('/images', async (c) => {
    const limit = pageLimit(c.req.query('limit'));
    const cursor = c.req.query('cursor');
    const after = cursor === undefined ? undefined : parseImageName(cursor);
    const { metadata } = c.var.services;
    const rows = await metadata.names.list(c.var.principal.namespace, { limit: limit + 1, after });
    const page = rows.slice(0, limit);
    const last = page.at(-1);
    return c.json({
      images: page.map((row) => ({
        name: row.name,
        tag: row.tag,
        updatedAt: new Date(row.updatedAt).toISOString(),
        image: row.image.record,
      })),
      nextCursor: rows.length > limit && last !== undefined ? `${last.name}:${last.tag}` : null,
    });
  });

  routes.get('/images/:ref', async (c) => c.json(await imageDetail(c)));

  routes.get('/images/:ref/manifest', async (c) => {
    const { namespace, id } = await streamingImage(c);
    // A client that takes all chunks of the image for present, without asking, would not send what is damaged.
    if (c.req.query('whole') === 'true' && (await c.var.services.metadata.images.hasDamage(namespace))) {
      throw new DecantError(
        'CAS_CHUNK_MISSING',
        'Chunks of this namespace are damaged, and have not been replaced yet.',
      );
    }
    return documentResponse(c, 'manifest', manifestKey(namespace, id));
  });

  routes.get('/images/:ref/locator', async (c) => {
    const { namespace, id } = await streamingImage(c);
    return documentResponse(c, 'locator', locatorKey(namespace, id));
  });

  routes.post('/images/:ref/check', async (c) => {
    const { ids } = await jsonBody(c, checkChunksRequestSchema);
    const { namespace, id } = await streamingImage(c);
    return c.json(await c.var.services.checkChunks(namespace, id, ids.map(parseChunkId)));
  });

  routes.post('/images/:ref/packs/sign', async (c) => {
    const { packs } = await jsonBody(c, signPacksRequestSchema);
    const { namespace, id } = await streamingImage(c);
    const { store } = c.var.services;
    const signer = originSigner(c);
    const locator = parseLocator(await store.get(locatorKey(namespace, id)));
    const signed = packs.map((pack) => {
      const key = locator.packs[pack]?.key;
      if (key === undefined) throw new DecantError('USAGE', `The image has no pack ${pack}.`);
      return { pack, ...signer.signGet(key) };
    });
    return c.json({
      packs: signed.map(({ pack, url }) => ({ pack, url })),
      expiresAt: signed[0]?.expiresAt ?? new Date().toISOString(),
    });
  });

  routes.get('/images/:ref/archive', async (c) => {
    const { namespace, image } = await findImage(c);
    const id = parseImageId(image.record.id);
    if (isStreamingImageId(id)) {
      throw new DecantError('USAGE', 'The image is made of chunks; read its manifest and locator.');
    }
    const { url, expiresAt } = originSigner(c).signGet(archiveKey(namespace, id));
    return c.json({
      url,
      expiresAt,
      encoding: 'zstd',
      sizeBytes: image.record.virtualBytes,
      storedBytes: image.record.storedBytes,
    });
  });

  routes.post('/chunks/missing', async (c) => {
    const { ids } = await jsonBody(c, missingChunksRequestSchema);
    const wanted = ids.map(parseChunkId);
    const found = await c.var.services.metadata.images.chunkIndex(c.var.principal.namespace).locate(wanted);
    return c.json({ missing: wanted.filter((id) => !found.has(id)) });
  });

  return routes;
}

function pageLimit(text: string | undefined): number {
  const limit = text === undefined ? 100 : Number(text);
  if (!Number.isInteger(limit) || limit < 1 || limit > 1000) {
    throw new DecantError('USAGE', 'The limit of a page is 1 to 1000.');
  }
  return limit;
}

function noImage(ref: string): DecantError {
  return new DecantError('NOT_FOUND', `There is no image ${ref}.`, {
    hint: 'List what there is with: decant image ls',
  });
}

async function findImage(c: RouteContext): Promise<{ namespace: Namespace; image: ImageRow; detail: ImageDetail }> {
  const ref = c.req.param('ref') ?? '';
  const { services, principal } = c.var;
  const { metadata } = services;
  const { namespace } = principal;
  if (isImageId(ref)) {
    const image = await metadata.images.find(namespace, ref);
    if (image === undefined) throw noImage(ref);
    const config = await readConfig(services, namespace, image.configDigest);
    return {
      namespace,
      image,
      detail: { name: null, tag: null, updatedAt: null, diskBytes: 0, image: image.record, config },
    };
  }
  const name = await metadata.names.find(namespace, parseImageName(ref));
  const image = name === undefined ? undefined : await metadata.images.find(namespace, name.imageId);
  if (name === undefined || image === undefined) {
    throw noImage(ref);
  }
  const detail = {
    name: name.name,
    tag: name.tag,
    updatedAt: new Date(name.updatedAt).toISOString(),
    diskBytes: name.diskBytes,
    image: image.record,
    config: await readConfig(services, namespace, name.configDigest),
  };
  return { namespace, image, detail };
}

async function imageDetail(c: RouteContext): Promise<ImageDetail> {
  return (await findImage(c)).detail;
}

async function streamingImage(c: RouteContext): Promise<{ namespace: Namespace; id: ImageId }> {
  const { namespace, image } = await findImage(c);
  const id = parseImageId(image.record.id);
  if (!isStreamingImageId(id)) {
    throw new DecantError('USAGE', 'The image is one ext4 object; it has no manifest.', {
      hint: 'Create or import it with --streaming to get an image that streams.',
    });
  }
  return { namespace, id };
}

async function readConfig(
  services: Services,
  namespace: Namespace,
  digest: string | null,
): Promise<ImageConfig | null> {
  if (digest === null) return null;
  const key = configKey(namespace, digest);
  const bytes = await services.store.get(key, { range: { offset: 0, lengthBytes: await sizeOf(services, key) } });
  return imageConfigSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
}

async function sizeOf(services: Services, key: string): Promise<number> {
  const info = await services.store.head(key);
  if (info === undefined || info.sizeBytes > MAX_CONFIG_BYTES) {
    throw new DecantError('OBJECT_NOT_FOUND', 'The configuration of the image is not in the object store.');
  }
  return info.sizeBytes;
}

async function documentResponse(c: RouteContext, what: 'manifest' | 'locator', key: string): Promise<Response> {
  const { store } = c.var.services;
  const info = await store.head(key);
  if (info === undefined) {
    const code = what === 'manifest' ? 'CAS_MANIFEST_INVALID' : 'CAS_LOCATOR_INVALID';
    throw new DecantError(code, `The ${what} of the image is not in the object store.`, {
      hint: 'Import or build the image again: this writes it anew.',
    });
  }
  return bytesResponse(store.stream(key), info.sizeBytes);
}
