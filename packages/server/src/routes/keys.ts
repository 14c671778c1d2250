import { createKeyRequestSchema, DecantError, parseNamespace, type ApiKey } from '@decant/core';
import { Hono } from 'hono';

import { createApiKey, DEFAULT_NAMESPACE } from '../auth.ts';
import { jsonBody, type RouteContext, type ServerEnv } from '../http.ts';
import type { KeyRow } from '../metadata/store.ts';

/** API keys. Only an operator may see or change them: whoever holds the data directory. */
export function keyRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();

  routes.post('/', async (c) => {
    requireOperator(c);
    const { namespace } = await jsonBody(c, createKeyRequestSchema);
    const { row, key } = await createApiKey(
      c.var.services.metadata,
      namespace === undefined ? DEFAULT_NAMESPACE : parseNamespace(namespace),
    );
    return c.json({ ...answer(row), key }, 201);
  });

  routes.get('/', async (c) => {
    requireOperator(c);
    return c.json({ keys: (await c.var.services.metadata.keys.list()).map(answer) });
  });

  routes.delete('/:id', async (c) => {
    requireOperator(c);
    const row = await c.var.services.metadata.keys.revoke(c.req.param('id'));
    if (row === undefined) throw new DecantError('NOT_FOUND', `There is no key ${c.req.param('id')}.`);
    return c.json(answer(row));
  });

  return routes;
}

function requireOperator(c: RouteContext): void {
  if (c.var.principal.operator) return;
  throw new DecantError('FORBIDDEN', 'Keys are managed on the machine that holds the data directory.', {
    hint: 'Run decant key there, without DECANT_URL.',
  });
}

function answer(row: KeyRow): ApiKey {
  return {
    id: row.id,
    namespace: row.namespace,
    createdAt: new Date(row.createdAt).toISOString(),
    revokedAt: row.revokedAt === null ? null : new Date(row.revokedAt).toISOString(),
  };
}
