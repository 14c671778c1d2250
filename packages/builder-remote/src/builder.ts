import {
  buildListSchema,
  buildSchema,
  DecantError,
  isDecantError,
  isErrorCode,
  retry,
  sleep,
  type Fetch,
  type ProgressEvent,
  type RemoteBuild,
} from '@decant/core';
import { createHttpClient, discardBody, type HttpClient } from '@decant/transport';

import { followLog, type FollowLogOptions, type LogItem } from './build-log.ts';
import type { RemoteContext } from './remote-context.ts';
import { submitBuild, type Submission } from './submit.ts';

export interface RemoteBuilderOptions {
  /** Address of the image-builder; `/builds` is put behind it. */
  readonly baseUrl: string;
  readonly fetch: Fetch;
  readonly token?: string | undefined;
  readonly userAgent?: string | undefined;
  /** Milliseconds without progress after which a build that cannot be followed is given up; default 120,000. */
  readonly patienceMs?: number | undefined;
  /**
   * Whether uploads are sent while they are made. Default: except in a browser, which cannot do so over HTTP/1.1 and
   * gathers them in a blob.
   */
  readonly streaming?: boolean | undefined;
}

export interface RemoteBuildRequest {
  readonly context: RemoteContext;
  /** `NAME[:TAG]` in the service's registry; default: a random one. */
  readonly imageName?: string | undefined;
  readonly buildArgs?: Readonly<Record<string, string>> | undefined;
  readonly target?: string | undefined;
  /** `ignore` runs every step and keeps the cache, `refresh` replaces it; default `use`. */
  readonly cache?: 'use' | 'ignore' | 'refresh' | undefined;
  /** Builds with the same key share a cache; default: none that a later build would find. */
  readonly cacheKey?: string | undefined;
  /** Architecture that the image must have. */
  readonly architecture?: 'amd64' | 'arm64' | undefined;
  /** Whether registration is to make a streaming image; default true, as the contract has it. */
  readonly streamingImage?: boolean | undefined;
  /**
   * `files` sends only the files that the service lacks, `archive` all of them; `auto`, the default, sends files when
   * there is enough to save and the service offers it.
   */
  readonly transfer?: 'auto' | 'files' | 'archive' | undefined;
}

/** Lines of the build, warnings, and how far the upload is (of the stage `context`). */
export type RemoteBuildEvent = Extract<ProgressEvent, { type: 'log' | 'warning' | 'stage-progress' }>;

export interface RemoteBuildResult {
  /** The image in the service's registry. */
  readonly image: string;
  readonly architecture: 'amd64' | 'arm64';
  readonly buildId: string;
  /** What built it, for people. */
  readonly engine: string;
  /** Bytes of the context that were sent, before compression: all of it, or of the files that the service lacked. */
  readonly sentBytes: number;
}

export interface RemoteCallOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface RemoteBuilder {
  /**
   * Submits, follows and ends a build. Aborting, or leaving the generator early, cancels it at the service, for which
   * at most five seconds are taken.
   * @throws what the build failed with (BUILD_STEP_FAILED, …), BUILD_CANCELLED, what the service refused the
   * submission with, errors of the context, HTTP_UNREACHABLE or TIMEOUT when the service cannot be reached for long.
   */
  build(request: RemoteBuildRequest, options?: RemoteCallOptions): AsyncGenerator<RemoteBuildEvent, RemoteBuildResult>;
  get(buildId: string, options?: RemoteCallOptions): Promise<RemoteBuild>;
  /** A page of builds, newest first. */
  list(
    page?: { readonly limit?: number | undefined; readonly cursor?: string | undefined },
    options?: RemoteCallOptions,
  ): Promise<{ readonly builds: readonly RemoteBuild[]; readonly nextCursor: string | null }>;
  /** The log from its first line to its end. */
  logs(buildId: string, options?: FollowLogOptions): AsyncGenerator<LogItem, void>;
  /** Cancels a build; one that has ended or is unknown is no error. */
  cancel(buildId: string, options?: RemoteCallOptions): Promise<void>;
}

const DEFAULT_PATIENCE_MS = 120_000;
/** Longest time that cancelling may take when the caller has given up, in milliseconds. */
const CANCEL_MS = 5000;
/** Milliseconds between two questions after a build whose log cannot be followed. */
const POLL_MS = 1000;
const UPLOAD_REPORT_MS = 200;
/** Longest that a build whose log cannot be followed is asked after. */
const LONGEST_BUILD_MS = 24 * 60 * 60 * 1000;

/** A client of one image-builder. @throws CONFIG_INVALID for an address that cannot be one. */
export function createRemoteBuilder(options: RemoteBuilderOptions): RemoteBuilder {
  const { patienceMs = DEFAULT_PATIENCE_MS } = options;
  const streaming = options.streaming ?? !isBrowser();
  const client = createHttpClient({
    baseUrl: options.baseUrl,
    fetch: options.fetch,
    token: options.token,
    userAgent: options.userAgent,
  });
  const get = (id: string, { signal }: RemoteCallOptions = {}) => getBuild(client, id, signal);
  const cancel = async (id: string, { signal }: RemoteCallOptions = {}) => {
    try {
      discardBody(await client.request('DELETE', pathOf(id), { signal, timeoutMs: CANCEL_MS }));
    } catch (error) {
      if (!isDecantError(error) || error.details['status'] !== 404) throw error;
    }
  };

  async function* build(request: RemoteBuildRequest, { signal }: RemoteCallOptions = {}) {
    signal?.throwIfAborted();
    let submitted: Submission | undefined;
    let over = false;
    try {
      submitted = yield* whileReporting(
        (report, either) =>
          submitBuild(client, request, { streaming, patienceMs, report, cancel: cancelBounded, signal: either }),
        { signal, onLeft: (late) => cancelBounded(late.buildId) },
      );
      const { buildId } = submitted;
      const logEnded = yield* followBuild(client, buildId, patienceMs, signal);
      const ended = await endOf(client, buildId, { patienceMs, logEnded, signal });
      over = true;
      return resultOf(ended, request, submitted);
    } finally {
      if (submitted !== undefined && !over) await cancelBounded(submitted.buildId);
    }
  }

  /** Best effort: whoever calls has something else to report. */
  async function cancelBounded(buildId: string): Promise<void> {
    await cancel(buildId, { signal: AbortSignal.timeout(CANCEL_MS) }).catch(() => undefined);
  }

  return {
    build,
    get,
    cancel,
    async list(page = {}, { signal } = {}) {
      const { data, next_cursor: nextCursor } = await client.json(buildListSchema, 'GET', '/builds', {
        query: { ...page },
        signal,
      });
      return { builds: data, nextCursor };
    },
    logs: (buildId, follow = {}) => followLog(client, buildId, { patienceMs, ...follow }),
  };
}

function pathOf(buildId: string): string {
  return `/builds/${encodeURIComponent(buildId)}`;
}

function getBuild(client: HttpClient, buildId: string, signal: AbortSignal | undefined): Promise<RemoteBuild> {
  return client.json(buildSchema, 'GET', pathOf(buildId), { signal });
}

/** What a build's end needs to be told; a service of the original contract tells nothing but the image. */
const toldSchema = buildSchema
  .pick({ image_ref: true, architecture: true, engine: true, error: true })
  .partial()
  .extend({ status: buildSchema.shape.status.optional().catch(undefined) });
type Told = ReturnType<typeof toldSchema.parse>;

/**
 * The events of work that reports the latest of something, while it is under way. Leaving it early aborts the work and
 * waits for its end; `onLeft` is given what it came to all the same.
 */
async function* whileReporting<T>(
  start: (report: (event: RemoteBuildEvent) => void, signal: AbortSignal) => Promise<T>,
  options: { readonly signal: AbortSignal | undefined; readonly onLeft: (value: T) => Promise<void> },
): AsyncGenerator<RemoteBuildEvent, T> {
  const left = new AbortController();
  let latest: RemoteBuildEvent | undefined;
  const warnings: RemoteBuildEvent[] = [];
  const take = () => {
    const events = [...warnings.splice(0), ...(latest === undefined ? [] : [latest])];
    latest = undefined;
    return events;
  };
  const work = start(
    (event) => {
      if (event.type === 'stage-progress') latest = event;
      else warnings.push(event);
    },
    AbortSignal.any(options.signal === undefined ? [left.signal] : [options.signal, left.signal]),
  );
  let isOver = false;
  try {
    for (;;) {
      const pause = new AbortController();
      const result = await Promise.race([
        work.then((value) => ({ value })),
        sleep(UPLOAD_REPORT_MS, pause.signal).catch(() => undefined),
      ]).finally(() => pause.abort());
      yield* take();
      if (result === undefined) continue;
      isOver = true;
      return result.value;
    }
  } finally {
    if (!isOver) {
      left.abort(new Error('Nobody takes the events any more.'));
      await work.then(options.onLeft, () => undefined);
    }
  }
}

/** The lines of a build; returns whether its log came to its end. */
async function* followBuild(
  client: HttpClient,
  buildId: string,
  patienceMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<RemoteBuildEvent, boolean> {
  try {
    for await (const item of followLog(client, buildId, { patienceMs, signal })) {
      if (item.type === 'line') yield { type: 'log', stage: 'build', stream: 'stdout', line: item.line };
      else yield warning(`${item.lines} lines of the build's log were not kept by the service.`);
    }
    return true;
  } catch (error) {
    signal?.throwIfAborted();
    if (!isDecantError(error)) throw error;
    // The log is only shown; what became of the build is asked for, and that may well be answered.
    yield warning(`The log of the build cannot be followed any longer: ${error.message}`);
    return false;
  }
}

function warning(message: string): RemoteBuildEvent {
  return { type: 'warning', stage: 'build', message };
}

/**
 * The build once it has ended.
 * @throws what asking fails with, when no answer comes for `patienceMs`; TIMEOUT when its log has ended and it has not.
 */
async function endOf(
  client: HttpClient,
  buildId: string,
  options: { readonly patienceMs: number; readonly logEnded: boolean; readonly signal: AbortSignal | undefined },
): Promise<Told> {
  const { patienceMs, logEnded, signal } = options;
  const limitMs = logEnded ? patienceMs : LONGEST_BUILD_MS;
  const started = performance.now();
  while (performance.now() - started < limitMs) {
    const asked = performance.now();
    const build = await retry(() => client.json(toldSchema, 'GET', pathOf(buildId), { signal }), {
      attempts: Number.POSITIVE_INFINITY,
      maxDelayMs: POLL_MS,
      when: (error) => isDecantError(error) && error.retryable && performance.now() - asked < patienceMs,
      signal,
    });
    const { status, image_ref: image } = build;
    if (image !== undefined || (status !== undefined && status !== 'queued' && status !== 'running')) return build;
    await sleep(POLL_MS, signal);
  }
  throw new DecantError('TIMEOUT', `The service does not say how the build ended.`, { details: { buildId } });
}

function resultOf(build: Told, request: RemoteBuildRequest, { buildId, sentBytes }: Submission): RemoteBuildResult {
  const { image_ref: image, error } = build;
  if (build.status === 'cancelled') {
    throw new DecantError('BUILD_CANCELLED', error?.message ?? 'The build was cancelled.', {
      details: { buildId },
    });
  }
  if (build.status === 'failed' || image === undefined) {
    const code = isErrorCode(error?.code) ? error.code : 'BUILD_FAILED';
    throw new DecantError(code, error?.message ?? 'The build failed, and the service does not say why.', {
      hint: error?.hint ?? undefined,
      details: { ...error?.details, buildId },
      retryable: false,
    });
  }
  return {
    image,
    architecture: build.architecture ?? request.architecture ?? 'amd64',
    buildId,
    engine: build.engine ?? 'the image-builder',
    sentBytes,
  };
}

function isBrowser(): boolean {
  return 'document' in globalThis || 'WorkerGlobalScope' in globalThis;
}
