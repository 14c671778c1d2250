import type { RegistryLimits } from '@decant/oci';

import { parseSettings } from '../builder/limit-settings.ts';

const SETTINGS = {
  blob: ['blobBytes', 'bytes'],
  manifest: ['manifestBytes', 'bytes'],
  uploads: ['openUploads', 'number'],
  'upload-age': ['uploadAgeMs', 'seconds'],
  grace: ['graceMs', 'seconds'],
} as const satisfies Record<string, readonly [keyof RegistryLimits | 'graceMs', 'bytes' | 'seconds' | 'number']>;

/** What an operator can set of the mounted registry. */
export interface RegistryOptions {
  readonly limits?: Partial<RegistryLimits> | undefined;
  /** How long nothing must have needed a blob before its bytes go, in milliseconds; default a day. */
  readonly graceMs?: number | undefined;
}

/** Reads `NAME=VALUE` settings such as `blob=10G` or `grace=3600` (seconds); a later one wins. @throws USAGE */
export function parseRegistryLimits(texts: readonly string[]): RegistryOptions {
  const { graceMs, ...limits } = parseSettings(texts, SETTINGS, 'the registry');
  return { limits, graceMs };
}
