import { blobSignRequestSchema, DecantError, type BuildId } from '@decant/core';
import { namespacePrefix, stagingPrefix } from '@decant/ingest';
import { Hono } from 'hono';

import { jsonBody, originSigner, type RouteContext, type ServerEnv } from '../http.ts';

/**
 * `POST /api/v1/blob/sign`. A builder may write only below the staging prefix of a build of its own that has
 * not been completed; it may read whatever its namespace has admitted.
 */
export function blobSignRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();
  routes.post('/sign', async (c) => {
    const request = await jsonBody(c, blobSignRequestSchema);
    const prefix =
      request.target.kind === 'artifact'
        ? await stagingOf(c, request.target.rel_path)
        : admittedOf(c, request.target.uri);
    return c.json(await originSigner(c).sign({ namespacePrefix: prefix, request, signal: c.req.raw.signal }));
  });
  return routes;
}

function admittedOf(c: RouteContext, uri: string): string {
  const prefix = namespacePrefix(c.var.principal.namespace);
  if (originSigner(c).keyOfUri(uri).startsWith(`${prefix}staging/`)) {
    throw new DecantError('SIGN_PATH_FORBIDDEN', 'What is staged is written only; it can be read once it is admitted.');
  }
  return prefix;
}

async function stagingOf(c: RouteContext, relPath: string): Promise<string> {
  const { namespace } = c.var.principal;
  const [, , , id = ''] = relPath.split('/');
  const prefix = `${stagingPrefix(namespace, id as BuildId)}/`;
  if (!relPath.startsWith(prefix)) {
    throw new DecantError(
      'SIGN_PATH_FORBIDDEN',
      'The path to be signed is not in the staging area of a build of this key.',
    );
  }
  const build = await c.var.services.metadata.builds.find(namespace, id);
  if (build === undefined) throw new DecantError('SIGN_PATH_FORBIDDEN', `There is no build ${id}.`);
  if (build.status !== 'prepared') {
    throw new DecantError('INGEST_STATE', `Build ${id} is ${build.status}; nothing more can be uploaded to it.`);
  }
  return prefix;
}
