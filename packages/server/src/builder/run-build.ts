import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, familyOf, isErrorCode, toDecantError, type ObjectStore } from '@decant/core';
import { openDockerArchive } from '@decant/oci';

import type { BuildOutcome, ClaimedBuild, ImageBuildProblem, ImageBuildStore } from '../metadata/image-build-store.ts';
import { contextKey, dockerfileKey, readToFile } from './build-objects.ts';
import type { BuilderLimits } from './limits.ts';
import type { LocalRegistry } from './local-registry.ts';
import { LogWriter } from './log-writer.ts';
import type { BuildRunner } from './runner.ts';
import { Watchdog, type BuildClock } from './watchdog.ts';

export interface RunBuildOptions {
  readonly builds: ImageBuildStore;
  readonly store: ObjectStore;
  readonly registry: LocalRegistry;
  readonly runner: BuildRunner;
  readonly limits: BuilderLimits;
  readonly clock: BuildClock;
  readonly scratchDirectory: string;
  readonly leaseMs: number;
  /** Aborted when the process is to end: the build is given back. */
  readonly shutdown: AbortSignal;
  /** Aborted when the build is to end for another reason, which is the signal's. */
  readonly stop: AbortController;
  /** Told when the build's state or log has changed. */
  readonly onChange: () => void;
  readonly onError: (error: DecantError) => void;
}

export const CANCELLED = new DecantError('BUILD_CANCELLED', 'The build was cancelled.');
const LOST = new DecantError('BUILD_LOST', 'Another worker has taken the build over.');

/** Runs one claimed build to its end, whatever that is. Only a claim that was lost leaves it without one. */
export async function runBuild(claim: ClaimedBuild, options: RunBuildOptions): Promise<void> {
  const { builds, stop, shutdown, limits, onChange } = options;
  const { build } = claim;
  const signal = AbortSignal.any([stop.signal, shutdown]);
  const log = new LogWriter({
    builds,
    claim,
    limitBytes: limits.logBytes,
    onWritten: onChange,
    onLimit: () =>
      stop.abort(
        new DecantError('BUILD_LOG_BYTES', `The build wrote more than ${limits.logBytes} bytes of output.`, {
          hint: 'Let its steps write less, or to a file.',
          details: { limit: limits.logBytes },
        }),
      ),
    onFailure: () => stop.abort(LOST),
  });
  const renewal = setInterval(() => {
    builds.renew(claim, options.leaseMs).then(
      (standing) => {
        if (standing === 'cancelled') stop.abort(CANCELLED);
        else if (standing === 'lost') stop.abort(LOST);
      },
      () => stop.abort(LOST),
    );
  }, options.leaseMs / 10);
  let outcome: BuildOutcome | undefined;
  try {
    if (build.attempt > 1) log.note('The build starts again: what ran it before is gone.');
    outcome = await execute(claim, options, log, signal);
  } catch (thrown) {
    const error = stop.signal.aborted ? toDecantError(stop.signal.reason) : toDecantError(thrown);
    if (stop.signal.aborted || !shutdown.aborted) outcome = outcomeOf(error, log);
    if (isFault(error)) options.onError(error);
    if (error === LOST) outcome = undefined;
  } finally {
    clearInterval(renewal);
  }
  await log.flush();
  if (outcome !== undefined) await builds.finish(claim, outcome);
  else if (shutdown.aborted) await builds.release(claim);
  onChange();
}

async function execute(
  claim: ClaimedBuild,
  options: RunBuildOptions,
  log: LogWriter,
  signal: AbortSignal,
): Promise<BuildOutcome> {
  const { build } = claim;
  const { store, limits, clock, registry, stop } = options;
  const directory = await mkdtemp(join(options.scratchDirectory, 'build-'));
  using watchdog = new Watchdog(clock, limits, (error) => stop.abort(error));
  try {
    const contextFile = join(directory, 'context');
    await readToFile(store, contextKey(build.namespace, build.id), contextFile, signal);
    const dockerfile = await store.get(dockerfileKey(build.namespace, build.id), { signal });
    const { archiveFile } = await options.runner.run({
      buildId: build.id,
      namespace: build.namespace,
      cacheKey: build.cacheKey,
      hosts: [build.host],
      fields: build.fields,
      contextFile,
      dockerfile,
      directory,
      limits,
      onLine: (line) => {
        watchdog.heard();
        log.add(line);
      },
      onEngine: (engine) => {
        // Only shown to people: a build does not fail because it could not be told.
        options.builds.setEngine(claim, engine).catch(() => undefined);
      },
      signal,
    });
    await using image = await openDockerArchive(archiveFile, { signal });
    const { architecture } = image.platform;
    const known = architecture === 'amd64' || architecture === 'arm64' ? architecture : null;
    const { architecture: wanted } = build.fields;
    if (wanted !== undefined && wanted !== known) {
      throw new DecantError('BUILD_PLATFORM_UNSUPPORTED', `The image is for ${architecture}, not for ${wanted}.`);
    }
    const imageDigest = await registry.push(image, build.namespace, build, signal);
    signal.throwIfAborted();
    return { status: 'succeeded', imageDigest, architecture: known };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function outcomeOf(error: DecantError, log: LogWriter): BuildOutcome {
  const status = error.code === 'BUILD_CANCELLED' ? 'cancelled' : 'failed';
  return { status, problem: problemOf(error, log.lastLines) };
}

/** What is told of an error: of what went wrong inside the service, no more than that. */
export function problemOf(error: DecantError, lastLines: readonly string[] = []): ImageBuildProblem {
  if (isFault(error)) return { code: 'BUILD_FAILED', message: 'The build service failed.', details: {} };
  const details = { lastLines, ...error.details };
  return { code: error.code, message: error.message, hint: error.hint, details };
}

function isFault(error: DecantError): boolean {
  return !isErrorCode(error.code) || familyOf(error.code) === 'internal';
}
