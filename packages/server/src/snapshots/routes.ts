import {
  authorizeSchema,
  createSnapshotSchema,
  DecantError,
  MAX_SNAPSHOT_BATCH,
  setAliasSchema,
  snapshotAliasNameSchema,
  snapshotTagsSchema,
  type Snapshot,
  type SnapshotAlias,
} from '@decant/core';
import { Hono } from 'hono';

import { checked, jsonBody, registryHostOf, type RouteContext, type ServerEnv } from '../http.ts';
import type { SnapshotRow } from '../metadata/snapshot-store.ts';
import { isProjectOf, projectIdOf } from './project.ts';

const MAX_PAGE = 100;
const DEFAULT_PAGE = 20;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The snapshot registry, below `/v1`. */
export function snapshotRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();

  routes.post('/snapshots', async (c) => {
    const request = await jsonBody(c, createSnapshotSchema);
    const { namespace } = c.var.principal;
    // Whoever is beside the proxy names images by the address that they know.
    const hosts = [...new Set([registryHostOf(c), new URL(c.req.url).host])];
    const { signal } = c.req.raw;
    const row = await c.var.services.registrar.register(namespace, request, { hosts, signal });
    return c.json(snapshotAnswer(row), 201);
  });

  routes.get('/snapshots', async (c) => {
    const limit = pageLimit(c.req.query('limit'));
    const after = c.req.query('cursor');
    const excludeRetired = booleanOf(c, 'exclude_retired');
    const { namespace } = c.var.principal;
    const rows = await c.var.services.metadata.snapshots.list(namespace, {
      limit: limit + 1,
      after,
      tags: tagsOf(c),
      excludeRetired,
    });
    if (rows === undefined) throw parameterError('cursor', 'The cursor is of no page.');
    const page = rows.slice(0, limit);
    return c.json({
      data: page.map(snapshotAnswer),
      next_cursor: rows.length > limit ? (page.at(-1)?.id ?? null) : null,
    });
  });

  routes.get('/snapshots/batch', async (c) => {
    const ids = [...(c.req.queries('ids[]') ?? []), ...(c.req.queries('ids') ?? [])];
    if (ids.length === 0 || ids.length > MAX_SNAPSHOT_BATCH) {
      throw parameterError('ids[]', `Ask for 1 to ${MAX_SNAPSHOT_BATCH} snapshots.`);
    }
    if (new Set(ids).size < ids.length) throw parameterError('ids[]', 'An id is given twice.');
    if (!ids.every((id) => UUID.test(id))) throw parameterError('ids[]', 'An id is no UUID.');
    const { namespace } = c.var.principal;
    const found: Snapshot[] = [];
    for (const id of ids) {
      const row = await c.var.services.metadata.snapshots.find(namespace, id.toLowerCase());
      if (row !== undefined) found.push(snapshotAnswer(row));
    }
    return c.json(found);
  });

  routes.get('/snapshots/:id', async (c) => c.json(snapshotAnswer(await findSnapshot(c))));

  routes.post('/snapshots/:id/retire', async (c) => {
    const { id } = await findSnapshot(c);
    const row = await c.var.services.metadata.snapshots.retire(c.var.principal.namespace, id);
    if (row === undefined) throw notThere();
    return c.json(snapshotAnswer(row));
  });

  routes.get('/snapshots/:id/aliases', async (c) => {
    const { id } = await findSnapshot(c);
    const rows = await c.var.services.metadata.snapshots.aliases(c.var.principal.namespace, id);
    return c.json(
      rows.map(({ snapshotId, alias, createdAt }): SnapshotAlias => ({
        snapshot_id: snapshotId,
        alias,
        created_at: new Date(createdAt).toISOString(),
      })),
    );
  });

  routes.post('/snapshots/:id/aliases', async (c) => {
    const { alias } = await jsonBody(c, setAliasSchema);
    const { id } = await findSnapshot(c);
    if (!(await c.var.services.metadata.snapshots.setAlias(c.var.principal.namespace, id, alias))) throw notThere();
    return c.body(null, 204);
  });

  routes.delete('/snapshot-aliases/:alias', async (c) => {
    const alias = checked(snapshotAliasNameSchema, c.req.param('alias'), 'The alias');
    if (!(await c.var.services.metadata.snapshots.removeAlias(c.var.principal.namespace, alias))) {
      throw new DecantError('NOT_FOUND', 'There is no such alias.');
    }
    return c.body(null, 204);
  });

  routes.post('/authorize', async (c) => {
    const request = await jsonBody(c, authorizeSchema);
    if (!isProjectOf(request.project_id, c.var.principal.namespace)) {
      throw new DecantError('FORBIDDEN', 'The key does not open that project.');
    }
    return c.body(null, 204);
  });

  return routes;
}

/** By id, or by `@alias`. */
async function findSnapshot(c: RouteContext): Promise<SnapshotRow> {
  const text = c.req.param('id') ?? '';
  const { namespace } = c.var.principal;
  const { snapshots } = c.var.services.metadata;
  const row = await (text.startsWith('@')
    ? snapshots.findByAlias(namespace, text.slice(1))
    : snapshots.find(namespace, text.toLowerCase()));
  if (row === undefined) throw notThere();
  return row;
}

function snapshotAnswer(row: SnapshotRow): Snapshot {
  return {
    id: row.id,
    organization_id: null,
    project_id: projectIdOf(row.namespace),
    byte_size: row.byteSize,
    tags: { ...row.tags },
    ttl: row.ttl,
    memory: false,
    created_at: new Date(row.createdAt).toISOString(),
    retired_at: row.retiredAt === null ? null : new Date(row.retiredAt).toISOString(),
    updated_at: new Date(row.updatedAt).toISOString(),
    image_id: row.imageId,
    image_name: row.imageName,
    format: row.imageId.startsWith('cas-v1:') ? 'cas-streaming' : 'ext4',
    ...(row.architecture === null ? {} : { architecture: row.architecture }),
  };
}

/** `tags[key]=value`, as many as there are. */
function tagsOf(c: RouteContext): Record<string, string> {
  const tags: Record<string, string> = {};
  for (const [name, value] of new URL(c.req.url).searchParams) {
    const key = /^tags\[(.*)\]$/s.exec(name)?.[1];
    if (key !== undefined) tags[key] = value;
  }
  return checked(snapshotTagsSchema, tags, 'The filter by tags');
}

function booleanOf(c: RouteContext, name: string): boolean {
  const text = c.req.query(name) ?? 'false';
  if (text === 'true') return true;
  if (text === 'false') return false;
  throw parameterError(name, `${name} is true or false.`);
}

function pageLimit(text: string | undefined): number {
  const limit = text === undefined ? DEFAULT_PAGE : Number(text);
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_PAGE) {
    throw parameterError('limit', `The limit of a page is 1 to ${MAX_PAGE}.`);
  }
  return limit;
}

function parameterError(parameter: string, message: string): DecantError {
  return new DecantError('USAGE', message, { details: { path: [parameter] } });
}

function notThere(): DecantError {
  return new DecantError('NOT_FOUND', 'There is no such snapshot.');
}
