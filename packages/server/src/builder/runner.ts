import type { BuildFields } from '@decant/core';

import type { BuilderLimits } from './limits.ts';

/** What a build is run on. */
export interface RunnerRequest {
  readonly buildId: string;
  readonly namespace: string;
  readonly cacheKey: string;
  /** Hosts by which names of images mean this server's registry. */
  readonly hosts: readonly string[];
  readonly fields: BuildFields;
  /** The context as a tar archive, as it is or compressed by gzip; it has been inspected. */
  readonly contextFile: string;
  readonly dockerfile: Uint8Array;
  /** A private directory of this build; what is put there goes with the build. */
  readonly directory: string;
  readonly limits: BuilderLimits;
  /** One line of output. */
  readonly onLine: (line: string) => void;
  /** What builds it, for people. */
  readonly onEngine: (engine: string) => void;
  readonly signal: AbortSignal;
}

/** An image in a file of the build's directory, in the form of `docker save`. */
export interface BuiltImage {
  readonly archiveFile: string;
}

/** Runs builds of one kind of caller. */
export interface BuildRunner extends AsyncDisposable {
  /** Whether builds can be run here; asked at each submission. @throws why not, with a hint. */
  ready(signal?: AbortSignal): Promise<void>;
  /** @throws an error with a code of the family `build`, `usage` or `limit` when the build is at fault. */
  run(request: RunnerRequest): Promise<BuiltImage>;
}
