import type { BuildFields, ImageName, Namespace, RemoteBuildStatus } from '@decant/core';

/**
 * Who may be hurt by a build: `operator` builds are of whoever holds the data directory, and run on a local engine;
 * `tenant` builds come from somebody with a key, and run confined.
 */
export type BuildTrust = 'operator' | 'tenant';

export interface ImageBuildProblem {
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
  readonly details?: Readonly<Record<string, unknown>> | undefined;
}

/** A build of the image-builder. Times are milliseconds since 1970 on the store's clock. */
export interface ImageBuildRow extends ImageName {
  /** Grows with every submission. */
  readonly seq: number;
  readonly id: string;
  readonly namespace: Namespace;
  readonly trust: BuildTrust;
  /** By which the caller reached this server: names of images in its registry begin with it. */
  readonly host: string;
  readonly cacheKey: string;
  readonly fields: BuildFields;
  readonly contextBytes: number;
  readonly status: RemoteBuildStatus;
  /** Digest of the manifest in the registry, once it has succeeded. */
  readonly imageDigest: string | null;
  readonly architecture: 'amd64' | 'arm64' | null;
  readonly engine: string | null;
  readonly problem: ImageBuildProblem | null;
  readonly attempt: number;
  readonly logLines: number;
  readonly logBytes: number;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
}

export type NewImageBuild = Pick<
  ImageBuildRow,
  'id' | 'namespace' | 'trust' | 'host' | 'name' | 'tag' | 'cacheKey' | 'fields' | 'contextBytes'
> & {
  readonly idempotencyKey: string | undefined;
  /** Of all that was submitted. */
  readonly digest: string;
};

export interface SubmitLimits {
  /** Most builds of a namespace that may wait. */
  readonly queued: number;
  /** Milliseconds within which an equal submission without a key counts as one that was sent again. */
  readonly repeatMs: number;
}

/** A build as its worker holds it. A write with a token that a later claim has replaced is refused. */
export interface ClaimedBuild {
  readonly build: ImageBuildRow;
  readonly token: number;
}

export interface ClaimLimits {
  readonly trusts: readonly BuildTrust[];
  /** Most builds that run at a time, of everybody and of one namespace. */
  readonly running: number;
  readonly runningPerNamespace: number;
  readonly leaseMs: number;
}

export type BuildOutcome =
  | { readonly status: 'succeeded'; readonly imageDigest: string; readonly architecture: 'amd64' | 'arm64' | null }
  | { readonly status: 'failed' | 'cancelled'; readonly problem: ImageBuildProblem };

/** Lines of a log that follow each other; `firstLine` counts from 1. */
export interface LogChunk {
  readonly firstLine: number;
  readonly lines: readonly string[];
}

/**
 * Queue, state and logs of builds. The next to run is the oldest of the namespace that has the fewest builds running
 * and, of several such, of the one whose last start is the longest ago: namespaces take turns, and within one builds run
 * in the order they came.
 */
export interface ImageBuildStore {
  /**
   * Adds a build to the queue. With an idempotency key that the namespace has used, returns the build of that time;
   * without a key, one of the same digest that is not over or has just succeeded.
   * @throws BUILD_QUEUE_FULL
   */
  submit(
    build: NewImageBuild,
    limits: SubmitLimits,
  ): Promise<{ readonly build: ImageBuildRow; readonly repeated: boolean }>;
  find(namespace: Namespace, id: string): Promise<ImageBuildRow | undefined>;
  findByIdempotencyKey(namespace: Namespace, key: string): Promise<ImageBuildRow | undefined>;
  /** The newest build that made this image. */
  findByImage(namespace: Namespace, imageDigest: string): Promise<ImageBuildRow | undefined>;
  /** Newest first; `before` is the `seq` of the last one of the page before. */
  list(
    namespace: Namespace,
    options: { limit: number; before?: number | undefined; status?: RemoteBuildStatus | undefined },
  ): Promise<readonly ImageBuildRow[]>;
  /** Places in the queue, from 1, of those of these builds that wait. */
  positions(ids: readonly string[]): Promise<ReadonlyMap<string, number>>;
  claim(limits: ClaimLimits): Promise<ClaimedBuild | undefined>;
  /** Extends the lease. `lost`: another worker has it, or it has ended; `cancelled`: somebody wants it to end. */
  renew(claim: ClaimedBuild, leaseMs: number): Promise<'held' | 'cancelled' | 'lost'>;
  setEngine(claim: ClaimedBuild, engine: string): Promise<boolean>;
  /** Adds lines to the log. Returns false when the claim is lost. */
  appendLog(claim: ClaimedBuild, lines: readonly string[]): Promise<boolean>;
  /** Chunks that hold lines after `afterLine`, in order, of about 256 KiB together at most. */
  readLog(build: ImageBuildRow, afterLine: number): Promise<readonly LogChunk[]>;
  /** Returns false when the claim is lost. */
  finish(claim: ClaimedBuild, outcome: BuildOutcome): Promise<boolean>;
  /** Gives a build back that did not fail: it keeps its place, and the start does not count. */
  release(claim: ClaimedBuild): Promise<boolean>;
  /** Ends a queued build, or asks the worker of a running one to. Ended ones stay as they are; undefined: no such build. */
  cancel(namespace: Namespace, id: string, problem: ImageBuildProblem): Promise<ImageBuildRow | undefined>;
  /**
   * Puts running builds whose lease ran out back into the queue, or ends them when they have been started `mostAttempts`
   * times or were to be cancelled; ends those that wait for longer than `queueMs` since they came or were put back. Returns the ids of those that ended.
   */
  recover(options: {
    readonly mostAttempts: number;
    readonly queueMs: number;
    readonly lost: ImageBuildProblem;
    readonly expired: ImageBuildProblem;
    readonly cancelled: ImageBuildProblem;
  }): Promise<readonly string[]>;
  /** Builds that have ended and whose context has not been removed, at most 100. */
  withContext(): Promise<readonly ImageBuildRow[]>;
  contextRemoved(id: string): Promise<void>;
  /** Forgets builds that ended `olderThanMs` ago, at most 100, with their logs. Returns how many. */
  purge(olderThanMs: number): Promise<number>;
}
