import type { HashProvider, ThreadedCodec } from '@decant/cas';
import {
  completeRequestSchema,
  DecantError,
  FORMAT_VERSIONS,
  formatImageName,
  httpStatusOf,
  isDecantError,
  toDecantError,
  type ClaimedJob,
  type ImageId,
  type Namespace,
  type ObjectStore,
  type Template,
} from '@decant/core';
import {
  ingestArchive,
  ingestStreaming,
  recordKey,
  stagingPrefix,
  type AdmittedImage,
  type Admission,
  type IngestContext,
} from '@decant/ingest';
import { z } from 'zod';

import { admissionRecord } from './admission-record.ts';
import { relocateReplaced } from './repair.ts';
import { INGEST_JOB, type BuildProblem, type BuildRow, type MetadataStore } from './metadata/store.ts';

export interface WorkerOptions {
  readonly metadata: MetadataStore;
  readonly store: ObjectStore;
  readonly hash: () => Promise<HashProvider>;
  readonly codec: ThreadedCodec;
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
/** Claims after which a job is given up whatever ended the others: it may be what kills the workers. */
const MAX_CLAIMS = 20;
const RETRY_DELAY_MS = 2000;
/** Age at which builds are given up, and after another such time their staged objects removed. Signed URLs live as long. */
const BUILD_EXPIRY_MS = 24 * 60 * 60 * 1000;
/** Between two looks for builds of that age. */
const EXPIRY_INTERVAL_MS = 60 * 60 * 1000;
/** Between two reports of progress to the metadata, each of which is a durable write. */
const PROGRESS_INTERVAL_MS = 500;

const payloadSchema = z.object({ namespace: z.string(), buildId: z.string() });

/** Runs admissions, one at a time. Disposing of it gives an unfinished job back at once. */
export function startWorker(options: WorkerOptions): Worker {
  const { metadata, onError } = options;
  const controller = new AbortController();
  const { signal } = controller;
  let wake: () => void = () => undefined;
  let poked = false;
  let expiredAt = -Infinity;

  const idle = (mayBePoked: boolean) =>
    new Promise<void>((resolve) => {
      if ((mayBePoked && poked) || signal.aborted) {
        resolve();
        return;
      }
      const timer = setTimeout(resolve, options.idleMs);
      // A program that has nothing else to do may end: its jobs are taken over by the next one.
      timer.unref();
      wake = () => {
        if (!mayBePoked && !signal.aborted) return;
        clearTimeout(timer);
        resolve();
      };
    });

  const turn = async () => {
    const job = await metadata.jobs.claim([INGEST_JOB], LEASE_MS);
    if (job !== undefined) {
      await work(job, options, signal);
      return;
    }
    if (performance.now() - expiredAt > EXPIRY_INTERVAL_MS) {
      expiredAt = performance.now();
      await expireBuilds(options, signal);
      for (const namespace of await metadata.keys.namespaces()) await relocateReplaced(namespace, options, signal);
    }
    await idle(true);
  };

  const loop = async () => {
    while (!signal.aborted) {
      poked = false;
      try {
        await turn();
      } catch (error) {
        if (signal.aborted) return;
        onError?.(toDecantError(error));
        // Whatever failed is given time, however many callers poke meanwhile.
        await idle(false);
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
  const payload = payloadSchema.safeParse(job.payload);
  const build = payload.success
    ? await metadata.builds.find(payload.data.namespace as Namespace, payload.data.buildId)
    : undefined;
  if (build?.status !== 'ingesting') {
    await metadata.jobs.finish(job);
    return;
  }
  const lost = new AbortController();
  const renewal = setInterval(() => {
    metadata.jobs.renew(job, LEASE_MS).then(
      (held) => held || lost.abort(new DecantError('INGEST_STATE', 'Another worker has taken the job over.')),
      (error: unknown) => lost.abort(error),
    );
  }, LEASE_MS / 3);
  try {
    if (job.attempt > MAX_CLAIMS) {
      throw new DecantError('INGEST_REFUSED', `The admission was begun ${MAX_CLAIMS} times and never ended.`, {
        hint: 'The log of the server may say why. Build and upload the image again.',
      });
    }
    await admit(job, build, options, AbortSignal.any([shutdown, lost.signal]));
  } catch (error) {
    // What a step that was cut short throws says nothing about the upload.
    if (shutdown.aborted) await metadata.jobs.release(job, 0);
    if (shutdown.aborted || lost.signal.aborted || isDecantError(error, 'INGEST_STATE')) return;
    const failure = toDecantError(error);
    if (failure.retryable && job.attempt < MAX_ATTEMPTS) {
      await metadata.jobs.release(job, RETRY_DELAY_MS);
    } else {
      if (httpStatusOf(failure.code) >= 500) options.onError?.(failure);
      await metadata.builds.fail(job, build, problemOf(failure));
    }
    return;
  } finally {
    clearInterval(renewal);
  }
  // What stays after a failure here goes with the rest of what expires.
  await removeStaging(options.store, build, shutdown);
}

async function admit(job: ClaimedJob, build: BuildRow, options: WorkerOptions, signal: AbortSignal): Promise<void> {
  const { metadata, store } = options;
  const completion = completeRequestSchema.parse(build.completion);
  const staging = stagingPrefix(build.namespace, build.id);
  let reportedAt = -Infinity;
  const context: IngestContext = {
    store,
    hash: await options.hash(),
    codec: options.codec,
    namespace: build.namespace,
    index: metadata.images.chunkIndex(build.namespace),
    stagingPrefix: staging,
    scratchDirectory: options.scratchDirectory,
    findAdmitted: (id) => findAdmitted(metadata, build.namespace, id),
    onProgress: (bytes, totalBytes) => {
      const now = performance.now();
      if (now - reportedAt < PROGRESS_INTERVAL_MS) return;
      reportedAt = now;
      // Only shown to people: an admission does not fail because it could not be told.
      metadata.builds.setProgress(build.id, bytes, totalBytes).catch(() => undefined);
    },
    signal,
  };
  const declared = { virtualBytes: completion.snapshotSizeBytes, layout: completion.layout };
  const admission =
    build.format === 'ext4' ? await ingestArchive(declared, context) : await ingestStreaming(declared, context);
  if (!admission.repeated) {
    const record = await admissionRecord(metadata, build, admission);
    await store.put(recordKey(build.namespace, admission.id), new TextEncoder().encode(record), { signal });
  }
  signal.throwIfAborted();
  await metadata.builds.commit(job, {
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
  // The image is admitted: what goes wrong here is tried again with the next one, or when a worker starts.
  await relocateReplaced(build.namespace, options, signal).catch((error: unknown) => {
    if (!signal.aborted) options.onError?.(toDecantError(error));
  });
}

async function findAdmitted(
  metadata: MetadataStore,
  namespace: Namespace,
  id: ImageId,
): Promise<AdmittedImage | undefined> {
  const image = await metadata.images.find(namespace, id);
  return image === undefined ? undefined : { record: image.record, configDigest: image.configDigest };
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

async function expireBuilds({ metadata, store }: WorkerOptions, signal: AbortSignal): Promise<void> {
  const expired = await metadata.builds.expire(BUILD_EXPIRY_MS, {
    code: 'TIMEOUT',
    message: 'The upload was not completed within a day.',
  });
  for (const build of expired) {
    await removeStaging(store, build, signal);
    await metadata.builds.stagingRemoved(build.id);
  }
}

async function removeStaging(store: ObjectStore, build: BuildRow, signal: AbortSignal): Promise<void> {
  const prefix = `${stagingPrefix(build.namespace, build.id)}/`;
  for await (const { key } of store.list(prefix, { signal })) await store.delete(key, { signal });
}
