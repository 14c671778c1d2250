import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

import {
  completeRequestSchema,
  DecantError,
  FORMAT_VERSIONS,
  isErrorCode,
  parseImageName,
  prepareRequestSchema,
  STAGED,
  type CompleteRequest,
  type BuildId,
  type PrepareResponse,
  type TemplateBuild,
} from '@decant/core';
import { stagingPrefix } from '@decant/ingest';
import { Hono } from 'hono';

import { jsonBody, originSigner, type RouteContext, type ServerEnv } from '../http.ts';
import type { BuildRow, MetadataStore } from '../metadata/store.ts';

/** How long a synchronous completion (ext4) waits for its admission, in milliseconds. */
const ADMISSION_WAIT_MS = 30 * 60 * 1000;

/**
 * The platform plane: prepare → upload → complete. `/complete` answers 200 with the template for ext4 and
 * 202 for cas-streaming, whose build is then polled. Completing again is answered by how the build ended.
 */
export function platformRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();

  routes.post('/sandbox-template-builds', async (c) => {
    const request = await jsonBody(c, prepareRequestSchema);
    if (request.rootfsNodeKind === 'diff') {
      throw new DecantError('USAGE', 'This server takes base builds only, not diffs.', {
        hint: 'Send rootfsNodeKind "base"; chunks that the server has are not uploaded again.',
      });
    }
    const { metadata } = c.var.services;
    const { namespace } = c.var.principal;
    const build = await metadata.builds.create({
      id: randomUUID() as BuildId,
      namespace,
      snapshotId: randomUUID(),
      ...parseImageName(request.name),
      format: request.rootfsFormat,
      request,
    });
    const prefix = stagingPrefix(namespace, build.id);
    const answer: PrepareResponse = {
      buildId: build.id,
      snapshotId: build.snapshotId,
      snapshotRelPath: build.format === 'ext4' ? `${prefix}/${STAGED.archive}` : prefix,
      rootfsNodeKind: 'base',
      rootfsFormat: build.format,
    };
    return c.json(answer);
  });

  routes.get('/sandbox-template-builds/:id', async (c) => c.json(buildAnswer(await findBuild(c))));

  routes.post('/sandbox-template-builds/:id/complete', async (c) => {
    const completion = await jsonBody(c, completeRequestSchema);
    const { metadata, poke } = c.var.services;
    const build = await findBuild(c);
    checkCompletion(c, build, completion);
    const begun = await metadata.builds.beginIngest(build.namespace, build.id, completion);
    poke();
    if (build.format === 'cas-streaming' && begun.status === 'ingesting') return c.json(buildAnswer(begun), 202);
    const ended = await waitForEnd(metadata, begun, c.req.raw.signal);
    if (ended.status === 'completed') return c.json(ended.template);
    throw problemError(ended);
  });

  return routes;
}

async function findBuild(c: RouteContext): Promise<BuildRow> {
  const id = c.req.param('id') ?? '';
  const build = await c.var.services.metadata.builds.find(c.var.principal.namespace, id);
  if (build === undefined) throw new DecantError('NOT_FOUND', `There is no build ${id}.`);
  return build;
}

/** What a completion must have in common with what was prepared and staged. @throws USAGE, UPLOAD_URI_MISMATCH */
function checkCompletion(c: RouteContext, build: BuildRow, completion: CompleteRequest): void {
  const refuse = (message: string) => new DecantError('USAGE', message);
  if (completion.snapshotId !== build.snapshotId) {
    throw refuse('The completion names another snapshot than the build was prepared for.');
  }
  const version = FORMAT_VERSIONS[build.format];
  if (completion.snapshotFormatVersion !== version || (completion.rootfsFormat ?? build.format) !== build.format) {
    throw refuse(`A build prepared as ${build.format} is completed with format version ${version}.`);
  }
  if (completion.rootfsNodeKind !== 'base') throw refuse('The build was prepared as a base, not as a diff.');
  const staged = build.format === 'ext4' ? STAGED.archive : STAGED.manifest;
  const expected = originSigner(c).uriOfKey(`${stagingPrefix(build.namespace, build.id)}/${staged}`);
  if (completion.snapshotUri !== expected) {
    throw new DecantError(
      'UPLOAD_URI_MISMATCH',
      `The URI of the completion is not the one that was signed for ${staged}.`,
      {
        details: { expected },
      },
    );
  }
}

async function waitForEnd(metadata: MetadataStore, build: BuildRow, signal: AbortSignal): Promise<BuildRow> {
  const deadline = performance.now() + ADMISSION_WAIT_MS;
  for (let pauseMs = 20; ; pauseMs = Math.min(500, pauseMs * 2)) {
    const now = (await metadata.builds.find(build.namespace, build.id)) ?? build;
    if (now.status === 'completed' || now.status === 'failed') return now;
    if (performance.now() > deadline) {
      throw new DecantError('TIMEOUT', `The admission of build ${build.id} did not end in time.`, {
        hint: 'Ask for the build again later; its admission goes on.',
      });
    }
    await delay(pauseMs, undefined, { signal });
  }
}

function problemError(build: BuildRow): DecantError {
  const { problem } = build;
  const code = isErrorCode(problem?.code) ? problem.code : 'INGEST_REFUSED';
  return new DecantError(code, problem?.message ?? 'The upload was not admitted.', { hint: problem?.hint });
}

function buildAnswer(build: BuildRow): TemplateBuild {
  return {
    buildId: build.id,
    status: build.status,
    ...(build.template === null ? {} : { template: build.template }),
    ...(build.problem === null
      ? {}
      : {
          error: build.problem.message,
          problem: {
            code: build.problem.code,
            ...(build.problem.hint === undefined ? {} : { hint: build.problem.hint }),
          },
        }),
    progress: { bytes: build.progressBytes, totalBytes: build.progressTotal },
  };
}
