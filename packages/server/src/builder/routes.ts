import {
  canonicalJson,
  DecantError,
  formatImageName,
  IDEMPOTENCY_KEY_HEADER,
  REMOTE_BUILD_STATUSES,
  type BuildFields,
  type RemoteBuild,
  type RemoteBuildStatus,
} from '@decant/core';
import { Hono } from 'hono';

import { registryHostOf, type RouteContext, type ServerEnv } from '../http.ts';
import type { ImageBuildRow } from '../metadata/image-build-store.ts';
import { contextOfFiles } from './context-files-archive.ts';
import { logStream } from './log-stream.ts';
import { readSubmission } from './submission.ts';

const MAX_PAGE = 100;
const DEFAULT_PAGE = 20;

/** The image-builder: `/builds`. */
export function builderRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();

  routes.post('/', async (c) => {
    const { builder, metadata, store } = c.var.services;
    const { namespace, operator } = c.var.principal;
    const idempotencyKey = idempotencyKeyOf(c);
    await using scratch = await builder.scratch();
    const { fields, context: sent } = await readSubmission(c.req.raw, scratch.path, builder.limits);
    const { signal } = c.req.raw;
    const context =
      sent ?? (await contextOfFiles({ store, files: metadata.contextFiles }, { namespace, fields, scratch, signal }));
    if (context === undefined) throw new DecantError('USAGE', 'The form has no part "context".');
    const before =
      idempotencyKey === undefined
        ? undefined
        : await metadata.imageBuilds.findByIdempotencyKey(namespace, idempotencyKey);
    const build =
      before ??
      (await builder.submit(
        {
          namespace,
          trust: operator ? 'operator' : 'tenant',
          host: registryHostOf(c),
          fields,
          contextFile: context.file,
          contextBytes: context.sizeBytes,
          contextDigest: context.sha256,
          idempotencyKey,
        },
        c.req.raw.signal,
      ));
    if (idempotencyKey !== undefined) requireSameFields(build, fields);
    return c.json(await answerOf(c, build), 202);
  });

  routes.get('/', async (c) => {
    const limit = pageLimit(c.req.query('limit'));
    const status = statusOf(c.req.query('status'));
    const cursor = c.req.query('cursor');
    const { namespace } = c.var.principal;
    const { imageBuilds } = c.var.services.metadata;
    const last = cursor === undefined ? undefined : await imageBuilds.find(namespace, cursor);
    if (cursor !== undefined && last === undefined) throw new DecantError('USAGE', 'The cursor is of no page.');
    const rows = await imageBuilds.list(namespace, { limit: limit + 1, before: last?.seq, status });
    const page = rows.slice(0, limit);
    const places = await imageBuilds.positions(page.map(({ id }) => id));
    return c.json({
      data: page.map((row) => buildAnswer(c, row, places.get(row.id))),
      next_cursor: rows.length > limit ? (page.at(-1)?.id ?? null) : null,
    });
  });

  routes.get('/:id', async (c) => c.json(await answerOf(c, await findBuild(c))));

  routes.get('/:id/logs', async (c) => {
    const build = await findBuild(c);
    const { services, principal } = c.var;
    const stream = logStream({
      builds: services.metadata.imageBuilds,
      builder: services.builder,
      namespace: principal.namespace,
      build,
      afterLine: afterLineOf(c.req.header('last-event-id') ?? c.req.query('after')),
      signal: c.req.raw.signal,
    });
    return new Response(stream, {
      headers: {
        'content-type': 'text/event-stream',
        'cache-control': 'no-store, no-transform',
        // nginx holds back what it is not told to pass on.
        'x-accel-buffering': 'no',
      },
    });
  });

  routes.delete('/:id', async (c) => {
    await c.var.services.builder.cancel(c.var.principal.namespace, c.req.param('id'));
    return c.body(null, 204);
  });

  return routes;
}

/**
 * The context is not compared: who sends again may have packed again, or send files in place of an archive.
 * @throws CONFLICT when a key that was used comes with other fields: the answer would be another image's.
 */
function requireSameFields(build: ImageBuildRow, fields: BuildFields): void {
  const compared = (of: BuildFields) => canonicalJson({ ...of, context_id: undefined });
  if (compared(build.fields) === compared(fields)) return;
  throw new DecantError('CONFLICT', `The idempotency key was used for the build ${build.id}, whose fields differ.`, {
    hint: 'Use a new key for each build; the same one only to send a submission again.',
    details: { buildId: build.id },
  });
}

async function findBuild(c: RouteContext): Promise<ImageBuildRow> {
  const id = c.req.param('id') ?? '';
  const build = await c.var.services.metadata.imageBuilds.find(c.var.principal.namespace, id);
  if (build === undefined) throw new DecantError('NOT_FOUND', 'There is no such build.');
  return build;
}

async function answerOf(c: RouteContext, build: ImageBuildRow): Promise<RemoteBuild> {
  const places =
    build.status === 'queued' ? await c.var.services.metadata.imageBuilds.positions([build.id]) : undefined;
  return buildAnswer(c, build, places?.get(build.id));
}

function buildAnswer(c: RouteContext, build: ImageBuildRow, place: number | undefined): RemoteBuild {
  const { problem, imageDigest } = build;
  const time = (value: number | null) => (value === null ? null : new Date(value).toISOString());
  return {
    build_id: build.id,
    status: build.status,
    image_name: formatImageName(build),
    ...(imageDigest === null ? {} : { image_ref: imageRef(c, build, imageDigest) }),
    architecture: build.architecture,
    nydus_convert: build.fields.nydus_convert,
    cache_key: build.cacheKey,
    position: place ?? null,
    attempt: build.attempt,
    engine: build.engine,
    log_lines: build.logLines,
    error:
      problem === null
        ? null
        : {
            code: problem.code,
            message: problem.message,
            hint: problem.hint ?? null,
            details: { ...problem.details },
          },
    created_at: new Date(build.createdAt).toISOString(),
    started_at: time(build.startedAt),
    finished_at: time(build.finishedAt),
  };
}

/** The image as the caller reaches it: this server's host, the namespace, the name, and the digest that was built. */
function imageRef(c: RouteContext, build: ImageBuildRow, digest: string): string {
  return `${registryHostOf(c)}/${build.namespace}/${formatImageName(build)}@${digest}`;
}

function pageLimit(text: string | undefined): number {
  const limit = text === undefined ? DEFAULT_PAGE : Number(text);
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_PAGE) {
    throw new DecantError('USAGE', `The limit of a page is 1 to ${MAX_PAGE}.`, { details: { path: ['limit'] } });
  }
  return limit;
}

function statusOf(text: string | undefined): RemoteBuildStatus | undefined {
  if (text === undefined) return undefined;
  const status = REMOTE_BUILD_STATUSES.find((known) => known === text);
  if (status === undefined) {
    throw new DecantError('USAGE', `A status is one of ${REMOTE_BUILD_STATUSES.join(', ')}.`, {
      details: { path: ['status'] },
    });
  }
  return status;
}

/** The number of the last line that the client has; what is no number means none. */
function afterLineOf(text: string | undefined): number {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : 0;
}

function idempotencyKeyOf(c: RouteContext): string | undefined {
  const key = c.req.header(IDEMPOTENCY_KEY_HEADER);
  if (key === undefined) return undefined;
  if (!/^[\x21-\x7e]{1,255}$/.test(key)) {
    throw new DecantError('USAGE', 'An idempotency key has 1 to 255 visible ASCII characters.');
  }
  return key;
}
