import { isDecantError, toDecantError, type DecantError, type ObjectStore } from '@decant/core';

import type { MetadataStore } from '../metadata/store.ts';
import type { MountedRegistry } from './registry.ts';

export interface MaintenanceOptions {
  readonly metadata: MetadataStore;
  readonly store: ObjectStore;
  readonly registry: MountedRegistry;
  /** Milliseconds between two collections of one data directory, whoever runs them; default an hour. */
  readonly everyMs?: number | undefined;
  /** How long nothing must have needed a blob before it goes, in milliseconds; default a day. */
  readonly graceMs?: number | undefined;
  readonly onError?: ((error: DecantError) => void) | undefined;
}

const EVERY_MS = 60 * 60 * 1000;
/** When the last collection began, in milliseconds of Unix time; for all processes that have the directory open. */
const LAST_KEY = 'maintenance/registry';

/**
 * Reclaims the registry's bytes of deleted images: now if it is time, and from then on at intervals. A failure is reported, and
 * the next one tried when it is time again. Disposing of it ends a collection under way, which may end anywhere.
 */
export function startRegistryMaintenance(options: MaintenanceOptions): AsyncDisposable {
  const { everyMs = EVERY_MS, onError } = options;
  const controller = new AbortController();
  const { signal } = controller;
  let running: Promise<void> | undefined;
  const run = () => {
    running ??= collectIfDue(options, everyMs, signal)
      .catch((error: unknown) => {
        if (!signal.aborted) onError?.(toDecantError(error));
      })
      .finally(() => (running = undefined));
  };
  run();
  const timer = setInterval(run, everyMs);
  // A program that has nothing else to do may end.
  timer.unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      controller.abort();
      await running;
    },
  };
}

async function collectIfDue(options: MaintenanceOptions, everyMs: number, signal: AbortSignal): Promise<void> {
  const { metadata, store, registry, graceMs } = options;
  const age = Date.now() - (await lastBegun(store, signal));
  // The timer may be a little early. A time to come is one of a clock that was set back.
  if (age >= 0 && age < everyMs * 0.9) return;
  await store.put(LAST_KEY, new TextEncoder().encode(String(Date.now())), { signal });
  for (const namespace of await metadata.keys.namespaces()) await registry.collect(namespace, { graceMs, signal });
}

async function lastBegun(store: ObjectStore, signal: AbortSignal): Promise<number> {
  try {
    return Number(new TextDecoder().decode(await store.get(LAST_KEY, { signal }))) || 0;
  } catch (error) {
    if (isDecantError(error, 'OBJECT_NOT_FOUND')) return 0;
    throw error;
  }
}
