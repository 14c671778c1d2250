import {
  collectBottles,
  type AttachRequest,
  type BottleInfo,
  type CollectResult,
  type RemoteExec,
  type RemoteExecRequest,
} from '@decant/bottle';

import { findBottle } from './bottle-client.ts';
import { startDetached, type DetachedBottle, type DetachRequest } from './bottle-detach.ts';
import { bottlesDirectory } from './bottle-directories.ts';
import { listAllBottles, type ListedBottle } from './bottle-list.ts';
import { bottleAudit, bottleLogs, type BottleLogsRequest, type BottleOutput } from './bottle-logs.ts';
import { allBackends, planFor, type BottleRequest, type PlannedBottle } from './bottle-plan.ts';
import { runBottle, type RunBottleRequest, type RunBottleResult } from './bottle-run.ts';
import { snapshotBottle, type SnapshotBottleRequest } from './bottle-snapshot.ts';
import type { ImageResult } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

export interface ExecBottleRequest extends RemoteExecRequest {
  readonly slug: string;
}

export interface AttachBottleRequest extends AttachRequest {
  readonly slug: string;
}

export interface CopyBottleRequest {
  readonly slug: string;
  /** `copyIn`: an absolute path here; `copyOut`: a path inside. */
  readonly source: string;
  /** `copyIn`: a path inside; `copyOut`: an absolute path here that does not exist. */
  readonly target: string;
}

/** Agents in bottles. Running ones are reached by their control sockets, so by processes of the same user here. */
export interface Bottles {
  /** What a bottle would be and may do. Nothing happens. */
  plan(request: BottleRequest, options?: WorkOptions): Promise<PlannedBottle>;
  /** Runs a planned bottle in this process until its agent ends. */
  run(request: RunBottleRequest, options?: WorkOptions): Promise<RunBottleResult>;
  /** Starts a process that runs a bottle and outlives this one; resolves when the bottle runs. */
  detach(request: DetachRequest, options?: WorkOptions): Promise<DetachedBottle>;
  list(request?: { readonly all?: boolean | undefined }, options?: WorkOptions): Promise<ListedBottle[]>;
  info(slug: string, options?: WorkOptions): Promise<BottleInfo>;
  /** Runs a command in a bottle; it ends with this client. */
  exec(request: ExecBottleRequest, options?: WorkOptions): Promise<RemoteExec>;
  /** Shares the agent's streams or terminal; leaving does not end it. */
  attach(request: AttachBottleRequest, options?: WorkOptions): Promise<RemoteExec>;
  copyIn(request: CopyBottleRequest, options?: WorkOptions): Promise<void>;
  copyOut(request: CopyBottleRequest, options?: WorkOptions): Promise<void>;
  /** What the agent wrote, also after its end. */
  logs(request: BottleLogsRequest, options?: WorkOptions): Promise<BottleOutput>;
  audit(slug: string, options?: WorkOptions): Promise<BottleOutput>;
  /** TERM for the agent, KILL after `graceMs` (default 10,000), then everything; resolves when nothing is left. */
  stop(request: { readonly slug: string; readonly graceMs?: number | undefined }, options?: WorkOptions): Promise<void>;
  snapshot(request: SnapshotBottleRequest, options?: WorkOptions): Promise<ImageResult>;
  /** Undoes what killed bottles left. */
  gc(options?: WorkOptions): Promise<CollectResult>;
}

const GRACE_MS = 10_000;

export function createBottles(session: Session): Bottles {
  const at = (slug: string) => findBottle(session, slug);
  return {
    plan: (request, work = {}) => planFor(session, request, work),
    run: (request, work = {}) => runBottle(session, request, work),
    detach: (request, work = {}) => startDetached(session, request, work),
    list: (request = {}, work = {}) => listAllBottles(session, request, work),
    info: async (slug, { signal } = {}) => (await at(slug)).info(signal),
    exec: async ({ slug, ...request }, { signal } = {}) => (await at(slug)).exec(request, signal),
    attach: async ({ slug, ...request }, { signal } = {}) => (await at(slug)).attach(request, signal),
    copyIn: async ({ slug, source, target }, { signal } = {}) => (await at(slug)).copyIn(source, target, signal),
    copyOut: async ({ slug, source, target }, { signal } = {}) => (await at(slug)).copyOut(source, target, signal),
    logs: (request, work = {}) => bottleLogs(session, request, work),
    audit: (slug, work = {}) => bottleAudit(session, slug, work),
    stop: async ({ slug, graceMs = GRACE_MS }, { signal } = {}) => (await at(slug)).stop(graceMs, signal),
    snapshot: (request, work = {}) => snapshotBottle(session, request, work),
    gc: ({ signal } = {}) =>
      collectBottles({ directory: bottlesDirectory(session.paths), backends: allBackends(session), signal }),
  };
}
