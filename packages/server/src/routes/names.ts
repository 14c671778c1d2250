import {
  DecantError,
  formatImageName,
  parseImageId,
  parseImageName,
  setNameRequestSchema,
  type ImageName,
} from '@decant/core';
import { Hono } from 'hono';

import { jsonBody, type RouteContext, type ServerEnv } from '../http.ts';

/** Names: point one at an image, remove one, and what one pointed at before. */
export function nameRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();

  routes.put('/:name', async (c) => {
    const { imageId } = await jsonBody(c, setNameRequestSchema);
    const { metadata } = c.var.services;
    const { namespace } = c.var.principal;
    const id = parseImageId(imageId);
    const image = await metadata.images.find(namespace, id);
    if (image === undefined) throw new DecantError('NOT_FOUND', `There is no image ${imageId}.`);
    // An ext4 image's configuration belongs to the names that point at it: take it from the one the caller copies.
    const from = c.req.query('from');
    const source = from === undefined ? undefined : await metadata.names.find(namespace, parseImageName(from));
    if (source !== undefined && source.imageId !== id) {
      throw new DecantError('CONFLICT', `${from} points at another image by now.`, { hint: 'Run the command again.' });
    }
    const row = await metadata.names.set(namespace, {
      ...imageName(c),
      imageId: id,
      configDigest: source?.configDigest ?? image.configDigest,
      diskBytes: source?.diskBytes ?? 0,
    });
    return c.json({
      name: row.name,
      tag: row.tag,
      updatedAt: new Date(row.updatedAt).toISOString(),
      image: image.record,
    });
  });

  routes.delete('/:name', async (c) => {
    const name = imageName(c);
    if (!(await c.var.services.metadata.names.remove(c.var.principal.namespace, name))) {
      throw new DecantError('NOT_FOUND', `There is no image ${formatImageName(name)}.`, {
        hint: 'List what there is with: decant image ls',
      });
    }
    return c.body(null, 204);
  });

  routes.get('/:name/history', async (c) => {
    const name = imageName(c);
    const versions = await c.var.services.metadata.names.history(c.var.principal.namespace, name);
    if (versions.length === 0) throw new DecantError('NOT_FOUND', `There never was an image ${formatImageName(name)}.`);
    return c.json({
      versions: versions.map(({ version, imageId, createdAt }) => ({
        version,
        imageId,
        createdAt: new Date(createdAt).toISOString(),
      })),
    });
  });

  return routes;
}

function imageName(c: RouteContext): ImageName {
  return parseImageName(c.req.param('name') ?? '');
}
