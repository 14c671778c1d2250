import { isDecantError } from '@decant/core';
import { findProgram, run } from '@decant/core/node';

import type { DetectedBuilder } from './detect.ts';
import type { CallOptions } from './driver.ts';
import { architectureOf } from './image-archive.ts';
import { lastLinesOf } from './process-output.ts';
import { storageDriver } from './storage-driver.ts';
import {
  BUILDAH,
  PODMAN,
  storageCommand,
  type StorageDialect,
  type StorageFacts,
  type StorageOptions,
} from './storage-engine.ts';

/** Milliseconds that each probe of an engine may take: its program has tens of megabytes, and a slow disk may be cold. */
const PROBE_TIMEOUT_MS = 30_000;

/** What `info` says; podman begins its keys with small letters. */
interface Info {
  readonly host?: { readonly arch?: string } | undefined;
  readonly store?:
    | {
        readonly GraphDriverName?: string;
        readonly graphDriverName?: string;
        readonly GraphRoot?: string;
        readonly graphRoot?: string;
      }
    | undefined;
}

/**
 * Whether buildah or podman works here as this user, in the namespaces that its builds get. Empty when it is not
 * installed.
 */
export async function probeStorage(
  dialect: StorageDialect,
  options: StorageOptions,
  { signal }: CallOptions = {},
): Promise<DetectedBuilder[]> {
  const { name } = dialect;
  const program = options.program ?? (await findProgram(name));
  if (program === undefined) return [];
  const env = { ...process.env, ...options.env };
  const rootless = process.getuid?.() !== 0;
  try {
    const [command, ...args] = await storageCommand(program, options, rootless, dialect.info);
    const { stdout } = await run(command, args, { env, timeoutMs: PROBE_TIMEOUT_MS, signal });
    const { host, store } = JSON.parse(stdout.toString()) as Info;
    const version = await run(program, ['--version'], { env, timeoutMs: PROBE_TIMEOUT_MS, signal });
    const architecture = architectureOf(host?.arch ?? '');
    if (architecture === undefined) {
      const reason = `decant does not build for the architecture ${host?.arch ?? 'unknown'}.`;
      return [{ usable: false, name, program, reason }];
    }
    const facts: StorageFacts = {
      program,
      version: /\d+\.\d+\.\d+/.exec(version.stdout.toString())?.[0] ?? 'unknown',
      architecture,
      graphRoot: store?.GraphRoot ?? store?.graphRoot ?? '',
      graphDriver: store?.GraphDriverName ?? store?.graphDriverName ?? '',
      rootless,
      runc: await findProgram('runc'),
    };
    return [{ usable: true, name, program, driver: storageDriver(dialect, facts, options) }];
  } catch (error) {
    signal?.throwIfAborted();
    return [{ usable: false, name, program, ...whyNot(name, error, rootless) }];
  }
}

/** Whether buildah works here. */
export const probeBuildah = (options: StorageOptions, call: CallOptions = {}) => probeStorage(BUILDAH, options, call);
/** Whether podman works here. */
export const probePodman = (options: StorageOptions, call: CallOptions = {}) => probeStorage(PODMAN, options, call);

function whyNot(name: string, error: unknown, rootless: boolean): { reason: string; hint?: string | undefined } {
  const text = lastLinesOf(error);
  const last = text.split('\n').findLast((line) => line.trim() !== '') ?? '';
  if (rootless && /subuid|subgid|newuidmap|newgidmap|user namespace|uid_map/i.test(text)) {
    return {
      reason: `${name} cannot map user ids: ${last}`,
      hint: 'Install uidmap and give the user a range in /etc/subuid and /etc/subgid, or run as root.',
    };
  }
  return { reason: `${name} does not work here: ${last}`, hint: isDecantError(error) ? error.hint : undefined };
}
