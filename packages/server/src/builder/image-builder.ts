import { createHash, randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

import {
  canonicalJson,
  DecantError,
  parseImageName,
  toDecantError,
  type BuildFields,
  type Namespace,
  type ObjectStore,
} from '@decant/core';

import type { BuildTrust, ImageBuildRow } from '../metadata/image-build-store.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { contextKey, dockerfileKey, putFile, removeBuildObjects } from './build-objects.ts';
import { inspectContext } from './context-archive.ts';
import type { BuilderLimits } from './limits.ts';
import type { LocalRegistry } from './local-registry.ts';
import { CANCELLED, problemOf, runBuild } from './run-build.ts';
import type { BuildRunner } from './runner.ts';
import type { BuildClock } from './watchdog.ts';

export interface ImageBuilderOptions {
  readonly metadata: MetadataStore;
  readonly store: ObjectStore;
  readonly registry: LocalRegistry;
  /** Who runs builds of which trust in this process; of others none are taken from the queue. */
  readonly runners: Readonly<Partial<Record<BuildTrust, BuildRunner>>>;
  readonly limits: BuilderLimits;
  readonly clock: BuildClock;
  readonly scratchDirectory: string;
  /** Milliseconds between two looks at what other processes did. */
  readonly idleMs: number;
  readonly leaseMs: number;
  readonly onError?: ((error: DecantError) => void) | undefined;
}

/** A context that has arrived, in a file that may be removed once the call has returned. */
export interface NewBuild {
  readonly namespace: Namespace;
  readonly trust: BuildTrust;
  /** By which the caller reached this server. */
  readonly host: string;
  readonly fields: BuildFields;
  readonly contextFile: string;
  readonly contextBytes: number;
  /** Of the context, in whatever way; equal contexts have equal digests. */
  readonly contextDigest: string;
  readonly idempotencyKey: string | undefined;
}

/** The image-builder of one process: takes builds, and runs those it may. */
export interface ImageBuilder extends AsyncDisposable {
  readonly limits: BuilderLimits;
  /**
   * Puts a build into the queue. @throws BUILD_CONTEXT_…, BUILD_UNPACKED_BYTES, DOCKERFILE_UNREADABLE, NAME_INVALID,
   * BUILD_QUEUE_FULL, and what its runner says when this machine cannot run it.
   */
  submit(build: NewBuild, signal?: AbortSignal): Promise<ImageBuildRow>;
  /** Ends a build, whatever it is at; harmless for one that has ended or never was. */
  cancel(namespace: Namespace, id: string): Promise<void>;
  /** A private directory for one submission. */
  scratch(): Promise<{ readonly path: string } & AsyncDisposable>;
  /** Resolves when something may have changed for this build, or after `timeoutMs`. */
  changed(id: string, timeoutMs: number, signal: AbortSignal): Promise<void>;
}

/** Starts of a build before it counts as lost. */
const MOST_ATTEMPTS = 2;
const REPEAT_MS = 2 * 60 * 1000;
const HOUSEKEEPING_MS = 60 * 1000;

const LOST = new DecantError('BUILD_LOST', 'What ran the build was lost twice.', { hint: 'Build again.' });
const EXPIRED = new DecantError('BUILD_QUEUE_EXPIRED', 'The build waited in the queue for too long.', {
  hint: 'Build again later.',
});

export function startImageBuilder(options: ImageBuilderOptions): ImageBuilder {
  const { metadata, store, runners, limits, onError } = options;
  const builds = metadata.imageBuilds;
  const changes = new EventEmitter().setMaxListeners(0);
  const shutdown = new AbortController();
  const trusts = Object.keys(runners) as BuildTrust[];
  const running = new Map<string, { readonly stop: AbortController; readonly ended: Promise<void> }>();
  let wake: () => void = () => undefined;
  let poked = false;
  let keptAt = -Infinity;

  const poke = () => {
    poked = true;
    wake();
  };

  const start = (claim: NonNullable<Awaited<ReturnType<typeof builds.claim>>>) => {
    const { build } = claim;
    const runner = runners[build.trust]!;
    const stop = new AbortController();
    const ended = runBuild(claim, {
      builds,
      store,
      registry: options.registry,
      runner,
      limits,
      clock: options.clock,
      scratchDirectory: options.scratchDirectory,
      leaseMs: options.leaseMs,
      shutdown: shutdown.signal,
      stop,
      onChange: () => changes.emit(build.id),
      onError: (error) => onError?.(error),
    })
      .catch((error: unknown) => onError?.(toDecantError(error)))
      .finally(() => {
        running.delete(build.id);
        keptAt = -Infinity;
        poke();
      });
    running.set(build.id, { stop, ended });
    changes.emit(build.id);
  };

  const housekeeping = async () => {
    for (const build of await builds.withContext()) {
      await removeBuildObjects(store, build.namespace, build.id);
      await builds.contextRemoved(build.id);
    }
    while ((await builds.purge(limits.keepMs)) === 100);
  };

  const turn = async () => {
    const ended = await builds.recover({
      mostAttempts: MOST_ATTEMPTS,
      queueMs: limits.queueMs,
      lost: problemOf(LOST),
      expired: problemOf(EXPIRED),
      cancelled: problemOf(CANCELLED),
    });
    for (const id of ended) changes.emit(id);
    const { running: most, runningPerNamespace } = limits;
    const claim =
      trusts.length === 0
        ? undefined
        : await builds.claim({ trusts, running: most, runningPerNamespace, leaseMs: options.leaseMs });
    if (claim !== undefined) {
      start(claim);
      return;
    }
    if (performance.now() - keptAt > HOUSEKEEPING_MS) {
      keptAt = performance.now();
      await housekeeping();
    }
    await idle(true);
  };

  const idle = (mayBePoked: boolean) =>
    new Promise<void>((resolve) => {
      if ((mayBePoked && poked) || shutdown.signal.aborted) {
        resolve();
        return;
      }
      const timer = setTimeout(resolve, options.idleMs);
      // A program that has nothing else to do may end: what waits is taken over by the next one.
      timer.unref();
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  const loop = async () => {
    while (!shutdown.signal.aborted) {
      poked = false;
      try {
        await turn();
      } catch (error) {
        if (shutdown.signal.aborted) return;
        onError?.(toDecantError(error));
        await idle(false);
      }
    }
  };
  const looping = loop();

  return {
    limits,
    async submit(build, signal) {
      const { fields, namespace } = build;
      const { name, tag } = parseImageName(fields.image_name);
      const runner = runners[build.trust];
      if (runner === undefined) {
        throw new DecantError('BUILD_ISOLATION_UNAVAILABLE', 'This server does not build for others.', {
          hint: 'Start it with: decant serve',
        });
      }
      await runner.ready(signal);
      const inline = fields.dockerfile_text;
      const facts = await inspectContext(
        build.contextFile,
        inline === undefined ? fields.dockerfile : undefined,
        limits,
        signal,
      );
      const dockerfile = inline === undefined ? facts.dockerfile : new TextEncoder().encode(inline);
      const id = randomUUID();
      try {
        await putFile(store, contextKey(namespace, id), build.contextFile, signal);
        await store.put(dockerfileKey(namespace, id), dockerfile, { signal });
        const { build: row, repeated } = await builds.submit(
          {
            id,
            namespace,
            trust: build.trust,
            host: build.host,
            name,
            tag,
            cacheKey: fields.cache_key ?? name,
            fields,
            contextBytes: build.contextBytes,
            digest: createHash('sha256')
              .update(canonicalJson({ fields, context: build.contextDigest }))
              .digest('hex'),
            idempotencyKey: build.idempotencyKey,
          },
          { queued: limits.queued, repeatMs: REPEAT_MS },
        );
        if (repeated) await removeBuildObjects(store, namespace, id);
        poke();
        return row;
      } catch (error) {
        // Nothing else knows of these objects; what cannot be removed does not hide why the build was refused.
        await removeBuildObjects(store, namespace, id).catch((failure: unknown) => onError?.(toDecantError(failure)));
        throw error;
      }
    },
    async cancel(namespace, id) {
      const build = await builds.cancel(namespace, id, problemOf(CANCELLED));
      if (build === undefined) return;
      running.get(id)?.stop.abort(CANCELLED);
      changes.emit(id);
      poke();
    },
    async scratch() {
      const path = await mkdtemp(join(options.scratchDirectory, 'submit-'));
      return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
    },
    changed(id, timeoutMs, signal) {
      return new Promise((resolve) => {
        const done = () => {
          clearTimeout(timer);
          changes.off(id, done);
          signal.removeEventListener('abort', done);
          resolve();
        };
        const timer = setTimeout(done, timeoutMs);
        changes.once(id, done);
        signal.addEventListener('abort', done, { once: true });
        if (signal.aborted) done();
      });
    },
    async [Symbol.asyncDispose]() {
      shutdown.abort(new DecantError('INGEST_STATE', 'The server is shutting down.'));
      wake();
      await looping;
      await Promise.all([...running.values()].map(({ ended }) => ended));
      for (const runner of Object.values(runners)) await runner[Symbol.asyncDispose]();
    },
  };
}
