import { DecantError, IDEMPOTENCY_KEY_HEADER, toDecantError } from '@decant/core';
import { problemResponse } from '@decant/transport';
import { Hono } from 'hono';
import { cors } from 'hono/cors';

import { authenticate } from './auth.ts';
import { builderErrorResponse, hasBuilderErrors } from './builder/builder-error.ts';
import { builderRoutes } from './builder/routes.ts';
import { contextFileRoutes } from './builder/context-files-routes.ts';
import type { ServerEnv } from './http.ts';
import { credentialRoutes } from './registry/credentials.ts';
import { blobSignRoutes } from './routes/blob-sign.ts';
import { imageRoutes } from './routes/images.ts';
import { keyRoutes } from './routes/keys.ts';
import { nameRoutes } from './routes/names.ts';
import { registryCollectRoutes } from './routes/registry-collect.ts';
import { platformRoutes } from './routes/platform.ts';
import { snapshotRoutes } from './snapshots/routes.ts';
import { OBJECTS_PATH, type Services } from './services.ts';

export interface AppOptions {
  /** Told about every error that is a bug or a failing dependency (status 500 and above). */
  readonly onError?: ((error: DecantError, request: Request) => void) | undefined;
  /** Origins of web pages that may call the services. */
  readonly allowOrigins?: readonly string[] | undefined;
  /** Grace period of collections that an operator asks for without saying one, in milliseconds. */
  readonly registryGraceMs?: number | undefined;
}

/** The services as one handler: the same for HTTP and for an embedded caller. */
export function createApp(services: Services, options: AppOptions = {}): Hono<ServerEnv> {
  const app = new Hono<ServerEnv>();

  app.onError((thrown, c) => {
    const error = toDecantError(thrown);
    const response = hasBuilderErrors(c.req.path) ? builderErrorResponse(error) : problemResponse(error);
    // Whoever has gone away is told nothing, and nothing failed.
    if (response.status >= 500 && !c.req.raw.signal.aborted) options.onError?.(error, c.req.raw);
    return response;
  });
  app.notFound((c) => {
    const error = new DecantError('NOT_FOUND', `Nothing answers ${c.req.method} ${c.req.path}.`);
    return hasBuilderErrors(c.req.path) ? builderErrorResponse(error) : problemResponse(error);
  });

  const { allowOrigins = [] } = options;
  if (allowOrigins.length > 0) {
    // Keys travel in a header that a page must set itself, so no cookie can be misused.
    const allowHeaders = ['accept', 'authorization', 'content-type', 'content-encoding', 'cache-control'];
    allowHeaders.push('last-event-id', IDEMPOTENCY_KEY_HEADER);
    app.use('*', cors({ origin: [...allowOrigins], allowHeaders, maxAge: 600 }));
  }

  app.get('/healthz', (c) => c.json({ status: 'ok' }));
  app.get('/readyz', async (c) => {
    await services.metadata.keys.list();
    return c.json({ status: 'ready' });
  });
  // Signed URLs carry their own authority.
  app.all(`${OBJECTS_PATH}/*`, (c) => services.gateway(c.req.raw));

  // Docker's clients prove who they are in their own way, and want errors in their own form.
  const { registry } = services;
  app.all('/v2', (c) => registry.handle(c.req.raw, c.env?.operator));
  app.all('/v2/*', (c) => registry.handle(c.req.raw, c.env?.operator));

  app.use('*', async (c, next) => {
    c.set('services', services);
    c.set('principal', c.env?.operator ?? (await authenticate(services.metadata, c.req.header('authorization'))));
    await next();
  });
  app.route('/builds/contexts', contextFileRoutes());
  app.route('/builds', builderRoutes());
  app.route('/platform/v1', platformRoutes());
  app.route('/api/v1/blob', blobSignRoutes());
  app.route('/v1/keys', keyRoutes());
  app.route('/v1/container-registries', credentialRoutes());
  app.route('/v1/names', nameRoutes());
  app.route('/v1/registry', registryCollectRoutes(options.registryGraceMs));
  app.route('/v1', snapshotRoutes());
  app.route('/v1', imageRoutes());
  return app;
}
