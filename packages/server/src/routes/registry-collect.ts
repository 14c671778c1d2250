import { collectRegistryRequestSchema, DecantError, type CollectedRegistry } from '@decant/core';
import { Hono } from 'hono';

import { jsonBody, type ServerEnv } from '../http.ts';

/** Collections of the registry on demand, over all namespaces. Only an operator may ask: whoever holds the data directory. */
export function registryCollectRoutes(graceMs: number | undefined): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();

  routes.post('/collect', async (c) => {
    if (!c.var.principal.operator) {
      throw new DecantError('FORBIDDEN', 'The registry is collected on the machine that holds the data directory.', {
        hint: 'Run decant registry gc there, without DECANT_URL.',
      });
    }
    const { graceSeconds } = await jsonBody(c, collectRegistryRequestSchema);
    const { metadata, registry } = c.var.services;
    const namespaces: CollectedRegistry['namespaces'][number][] = [];
    for (const namespace of await metadata.keys.namespaces()) {
      const options = { graceMs: graceSeconds === undefined ? graceMs : graceSeconds * 1000, signal: c.req.raw.signal };
      namespaces.push({ namespace, ...(await registry.collect(namespace, options)) });
    }
    return c.json({ namespaces });
  });

  return routes;
}
