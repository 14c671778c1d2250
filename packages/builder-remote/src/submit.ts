import { packEntries, portableSha256 } from '@decant/context';
import {
  BUILD_FIELDS,
  DecantError,
  IDEMPOTENCY_KEY_HEADER,
  isDecantError,
  MIB,
  sleep,
  untilAborted,
} from '@decant/core';
import { MAX_PROBLEM_BYTES, readBody, type HttpClient } from '@decant/transport';

import type { RemoteBuildEvent, RemoteBuildRequest } from './builder.ts';
import { sendContextFiles } from './context-files.ts';
import { multipartBody } from './multipart.ts';
import { sendBody } from './send-body.ts';

/** Content of a context from which on asking for missing files is worth its round trip, in bytes. */
const FILES_FROM_BYTES = MIB;
/** How long a submission goes on being refused with 404, which a builder that is starting may answer. */
const MISSING_PATIENCE_MS = 5000;
/** How long the answer to a submission that was sent whole is waited for after an abort, to be able to cancel it. */
const ANSWER_AFTER_ABORT_MS = 2000;

export interface Submission {
  readonly buildId: string;
  readonly sentBytes: number;
}

export interface SubmitOptions {
  readonly streaming: boolean;
  readonly patienceMs: number;
  readonly report: (event: RemoteBuildEvent) => void;
  readonly cancel: (buildId: string) => Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Sends a context and what is to be made of it; the answer's build is submitted once, however often it is sent.
 * While the service is starting or busy it is tried again.
 */
export async function submitBuild(
  client: HttpClient,
  request: RemoteBuildRequest,
  options: SubmitOptions,
): Promise<Submission> {
  const { signal, patienceMs } = options;
  const fields = fieldsOf(request);
  const key = crypto.randomUUID();
  const started = performance.now();
  for (let attempt = 0; ; attempt++) {
    try {
      const sent = await sendFiles(client, request, options);
      if (sent !== undefined) fields[BUILD_FIELDS.contextId] = sent.contextId;
      return await submitOnce(client, request, fields, key, sent?.sentBytes, options);
    } catch (error) {
      signal?.throwIfAborted();
      const status = isDecantError(error) ? error.details['status'] : undefined;
      const again = isDecantError(error) && (error.retryable || status === 404 || status === 408 || status === 429);
      const limit = status === 404 ? Math.min(MISSING_PATIENCE_MS, patienceMs) : patienceMs;
      const delay = Math.min(5000, 250 * 2 ** attempt);
      if (!again || performance.now() - started + delay > limit) throw error;
      options.report({
        type: 'warning',
        stage: 'build',
        message: `The image-builder did not take the build (${error.message}); trying again.`,
      });
      await sleep(delay * (1 + Math.random() / 4), signal);
    }
  }
}

function sendFiles(client: HttpClient, request: RemoteBuildRequest, { streaming, report, signal }: SubmitOptions) {
  const { context, transfer = 'auto' } = request;
  const bytes = context.entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  if (transfer === 'archive' || (transfer === 'auto' && bytes < FILES_FROM_BYTES)) return undefined;
  const onProgress = (done: number, totalBytes: number) =>
    report({ type: 'stage-progress', stage: 'context', bytes: done, totalBytes });
  return sendContextFiles(client, context, { streaming, onProgress, signal });
}

async function submitOnce(
  client: HttpClient,
  { context }: RemoteBuildRequest,
  fields: Readonly<Record<string, string>>,
  key: string,
  sentBytes: number | undefined,
  { streaming, report, cancel, signal }: SubmitOptions,
): Promise<Submission> {
  const sha256 = context.sha256 ?? (await portableHash());
  const own = new AbortController();
  const packed =
    sentBytes === undefined
      ? packEntries(context.entries, context.reader(own.signal), {
          gzip: true,
          sha256,
          compress: context.compress,
          onEvent: (event) => {
            if (event.type === 'stage-progress') report(event);
          },
          signal: own.signal,
        })
      : undefined;
  const body = multipartBody(
    fields,
    packed === undefined
      ? undefined
      : { name: BUILD_FIELDS.context, fileName: 'context.tar.gz', type: 'application/gzip', bytes: packed.stream },
  );
  let sent = false;
  const answer = (async () => {
    const response = await sendBody(client, '/builds', {
      headers: { accept: 'application/json', 'content-type': body.contentType, [IDEMPOTENCY_KEY_HEADER]: key },
      bytes: body.bytes,
      // It is packed, checked and stored, also when its files are there already.
      contentBytes: context.entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      streaming,
      onSent: () => {
        sent = true;
      },
      signal: own.signal,
    });
    return buildIdOf(await readBody(response, MAX_PROBLEM_BYTES, { signal: own.signal }), response);
  })();
  try {
    const buildId = await untilAborted(answer, signal);
    return { buildId, sentBytes: sentBytes ?? packed?.tarBytes ?? 0 };
  } catch (error) {
    if (signal?.aborted !== true) throw error;
    // A submission that has arrived whole is a build by now: its id is needed to cancel it.
    const buildId = sent
      ? await Promise.race([answer.catch(() => undefined), sleep(ANSWER_AFTER_ABORT_MS)])
      : undefined;
    own.abort(signal.reason);
    await answer.catch(() => undefined);
    if (typeof buildId === 'string') await cancel(buildId);
    throw signal.reason;
  }
}

function fieldsOf(request: RemoteBuildRequest): Record<string, string> {
  const { context, imageName, buildArgs, target, cache, cacheKey, architecture, streamingImage = true } = request;
  const { path, displayPath, bytes } = context.dockerfile;
  return {
    [BUILD_FIELDS.imageName]: imageName ?? `image-${crypto.randomUUID()}:${crypto.randomUUID()}`,
    [BUILD_FIELDS.dockerfile]: path ?? displayPath,
    [BUILD_FIELDS.buildArgs]: JSON.stringify(buildArgs ?? {}),
    [BUILD_FIELDS.nydusConvert]: String(streamingImage),
    ...(path === null ? { [BUILD_FIELDS.dockerfileText]: textOf(bytes) } : {}),
    ...(target === undefined ? {} : { [BUILD_FIELDS.target]: target }),
    ...(cache === undefined ? {} : { [BUILD_FIELDS.cache]: cache }),
    ...(cacheKey === undefined ? {} : { [BUILD_FIELDS.cacheKey]: cacheKey }),
    ...(architecture === undefined ? {} : { [BUILD_FIELDS.architecture]: architecture }),
  };
}

function textOf(dockerfile: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(dockerfile);
  } catch (cause) {
    throw new DecantError('DOCKERFILE_INVALID', 'A Dockerfile outside of the context must be UTF-8 to be sent.', {
      cause,
    });
  }
}

async function portableHash() {
  const hash = await portableSha256();
  return () => hash;
}

function buildIdOf(body: Uint8Array, response: Response): string {
  try {
    const { build_id: id } = JSON.parse(new TextDecoder().decode(body)) as { build_id?: unknown };
    if (typeof id === 'string' && id !== '' && id.length <= 512) return id;
  } catch {
    // Said below.
  }
  throw new DecantError('HTTP_BODY_INVALID', 'The image-builder answered the submission without a build id.', {
    hint: 'Check that the address is that of an image-builder.',
    details: { status: response.status },
    retryable: false,
  });
}
