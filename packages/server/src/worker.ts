import type { ChunkCodec, HashProvider } from '@decant/cas';
import {
  completeRequestSchema,
  DecantError,
  FORMAT_VERSIONS,
  formatImageName,
  isDecantError,
  toDecantError,
  type ClaimedJob,
  type Namespace,
  type ObjectStore,
  type Template,
} from '@decant/core';
import {
  ingestArchive,
  ingestStreaming,
  recordKey,
  stagingPrefix,
  type Admission,
  type IngestContext,
} from '@decant/ingest';
import { z } from 'zod';

import { admissionRecord } from './admission-record.ts';
import { INGEST_JOB, type BuildProblem, type BuildRow, type MetadataStore } from './metadata/store.ts';

export interface WorkerOptions {
  readonly metadata: MetadataStore;
  readonly store: ObjectStore;
  readonly hash: () => Promise<HashProvider>;
  readonly codec: ChunkCodec;
  readonly scratchDirectory: string;
  /** Milliseconds between two looks for jobs that another process enqueued. */
  readonly idleMs: number;
  readonly onError?: ((error: DecantError) => void) | undefined;
}

export interface Worker extends AsyncDisposable {
  /** Looks for jobs now. */
  poke(): void;
}

/** How long a claim lasts without renewal: what a killed worker delays its jobs by. */
const LEASE_MS = 15_000;
/** Claims after which a job that keeps failing for passing reasons is given up. */
const MAX_ATTEMPTS = 3;
const RETRY_DELAY_MS = 2000;
/** Age at which the staged objects of an abandoned or failed build are removed. */
const STAGING_EXPIRY_MS = 24 * 60 * 60 * 1000;

const payloadSchema = z.object({ namespace: z.string(), buildId: z.string() });

/** Runs admissions, one at a time. Disposing of it gives an unfinished job back at once. */
export function startWorker(options: WorkerOptions): Worker {
  const { metadata, onError } = options;
  const controller = new AbortController();
  const { signal } = controller;
  let wake: () => void = () => undefined;
  let poked = false;

  const idle = () =>
    new Promise<void>((resolve) => {
      if (poked || signal.aborted) {
        resolve();
        return;
      }
      const timer = setTimeout(resolve, options.idleMs);
      // A program that has nothing else to do may end: its jobs are taken over by the next one.
      timer.unref();
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  const loop = async () => {
    await removeExpiredStaging(options).catch((error: unknown) => onError?.(toDecantError(error)));
    while (!signal.aborted) {
      poked = false;
      try {
        const job = await metadata.claim([INGEST_JOB], LEASE_MS);
        if (job === undefined) await idle();
        else await work(job, options, signal);
      } catch (error) {
        if (!signal.aborted) onError?.(toDecantError(error));
        await idle();
      }
    }
  };
  const ended = loop();
  return {
    poke() {
      poked = true;
      wake();
    },
    async [Symbol.asyncDispose]() {
      controller.abort(new DecantError('INGEST_STATE', 'The server is shutting down.'));
      wake();
      await ended;
    },
  };
}

async function work(job: ClaimedJob, options: WorkerOptions, shutdown: AbortSignal): Promise<void> {
  const { metadata } = options;
  const { namespace, buildId } = payloadSchema.parse(job.payload);
  const build = await metadata.findBuild(namespace as Namespace, buildId);
  if (build?.status !== 'ingesting') {
    await metadata.finish(job);
    return;
  }
  const lost = new AbortController();
  const renewal = setInterval(() => {
    metadata.renew(job, LEASE_MS).then(
      (held) => held || lost.abort(new DecantError('INGEST_STATE', 'Another worker has taken the job over.')),
      (error: unknown) => lost.abort(error),
    );
  }, LEASE_MS / 3);
  try {
    await admit(job, build, options, AbortSignal.any([shutdown, lost.signal]));
  } catch (error) {
    if (lost.signal.aborted || isDecantError(error, 'INGEST_STATE')) {
      if (shutdown.aborted) await metadata.release(job, 0);
      return;
    }
    const failure = toDecantError(error);
    if (failure.retryable && job.attempt < MAX_ATTEMPTS) {
      await metadata.release(job, RETRY_DELAY_MS);
    } else {
      if (failure.code === 'INTERNAL') options.onError?.(failure);
      await metadata.failBuild(job, build, problemOf(failure));
    }
  } finally {
    clearInterval(renewal);
  }
}

async function admit(job: ClaimedJob, build: BuildRow, options: WorkerOptions, signal: AbortSignal): Promise<void> {
  const { metadata, store } = options;
  const completion = completeRequestSchema.parse(build.completion);
  const staging = stagingPrefix(build.namespace, build.id);
  const context: IngestContext = {
    store,
    hash: await options.hash(),
    codec: options.codec,
    namespace: build.namespace,
    index: metadata.chunkIndex(build.namespace),
    stagingPrefix: staging,
    scratchDirectory: options.scratchDirectory,
    onProgress: (bytes, totalBytes) => {
      // Only shown to people: an admission does not fail because it could not be told.
      metadata.setProgress(build.id, bytes, totalBytes).catch(() => undefined);
    },
    signal,
  };
  const declared = { virtualBytes: completion.snapshotSizeBytes, layout: completion.layout };
  const admission =
    build.format === 'ext4' ? await ingestArchive(declared, context) : await ingestStreaming(declared, context);
  const record = await admissionRecord(metadata, build, admission);
  await store.put(recordKey(build.namespace, admission.id), new TextEncoder().encode(record), { signal });
  await metadata.commitAdmission(job, {
    build,
    image: {
      record: { ...admission.record, createdAt: new Date().toISOString() },
      configDigest: build.format === 'ext4' ? null : admission.configDigest,
    },
    packs: admission.packs,
    configDigest: admission.configDigest,
    diskBytes: completion.rootfsDiskBytes,
    template: templateOf(build, admission, completion.rootfsDiskBytes, completion.snapshotUri),
  });
  await removeStaging(store, build);
}

function templateOf(build: BuildRow, admission: Admission, diskBytes: number, uri: string): Template {
  return {
    id: build.id,
    name: formatImageName(build),
    snapshotId: build.snapshotId,
    snapshotUri: uri,
    snapshotFormatVersion: FORMAT_VERSIONS[build.format],
    snapshotSizeBytes: admission.record.virtualBytes,
    rootfsDiskBytes: diskBytes,
    rootfsNodeKind: 'base',
    public: false,
    imageId: admission.id,
    admission: admission.counts,
  };
}

function problemOf({ code, message, hint }: DecantError): BuildProblem {
  return { code, message, hint };
}

async function removeExpiredStaging({ metadata, store }: WorkerOptions): Promise<void> {
  const expired = await metadata.expireBuilds(STAGING_EXPIRY_MS, {
    code: 'TIMEOUT',
    message: 'The upload was not completed within a day.',
  });
  for (const build of expired) await removeStaging(store, build);
}

async function removeStaging(store: ObjectStore, build: BuildRow): Promise<void> {
  for await (const { key } of store.list(`${stagingPrefix(build.namespace, build.id)}/`)) await store.delete(key);
}
