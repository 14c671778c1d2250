import {
  collectBottles,
  openBottle,
  superviseBottle,
  type BottleEvent,
  type BottlePlan,
  type SuperviseOptions,
  type SupervisedEnd,
} from '@decant/bottle';
import { DecantError } from '@decant/core';

import { bottlesDirectory, recordsDirectory } from './bottle-directories.ts';
import { openBottleDisk, type BottleDisk } from './bottle-image.ts';
import { allBackends, type PlannedBottle } from './bottle-plan.ts';
import type { RunStats } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

export interface RunBottleRequest extends Pick<
  SuperviseOptions,
  'viewer' | 'stdin' | 'inheritStdin' | 'terminal' | 'command' | 'detached' | 'graceMs' | 'onReady'
> {
  readonly planned: PlannedBottle;
  /** Whether how it ended and what its agent wrote stay when it has ended. Default true. */
  readonly keepsRecord?: boolean | undefined;
  /** Let this machine's kernel mount a filesystem that decant's own writer did not make. */
  readonly trustFilesystem?: boolean | undefined;
  readonly onStage?: ((event: BottleEvent) => void) | undefined;
}

export interface RunBottleResult {
  /** The agent's; 128 + n after signal n. */
  readonly exitCode: number;
  /** False when the image has no such command or it cannot be executed, so that nothing ran. */
  readonly ran: boolean;
  readonly stats: RunStats;
}

/**
 * Runs a bottle in this process until its agent ends. Aborting ends the agent gracefully, and rejects with the reason.
 * @throws JAIL_UNAVAILABLE when its backend cannot be used here, BOTTLE_PROBE_FAILED, BOTTLE_ENDED, TIMEOUT
 */
export async function runBottle(
  session: Session,
  { planned, trustFilesystem, onStage, keepsRecord = true, ...supervision }: RunBottleRequest,
  { onEvent, signal }: WorkOptions,
): Promise<RunBottleResult> {
  const { plan, backend, environment } = planned;
  checkUsable(plan);
  signal?.throwIfAborted();
  // What killed ones left; what cannot be undone now is no reason not to run.
  await collectBottles({ directory: bottlesDirectory(session.paths), backends: allBackends(session), signal }).catch(
    () => signal?.throwIfAborted(),
  );
  let disk: BottleDisk | undefined;
  // Aborting during the launch takes it back; afterwards the agent is asked first.
  const launch = new AbortController();
  const onAbort = () => launch.abort(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const bottle = await openBottle(plan, {
      directory: bottlesDirectory(session.paths),
      backend,
      environment,
      resolveImage: async (request) => (disk = await openBottleDisk(session, { ...request, trustFilesystem, onEvent })),
      onEvent: onStage,
      signal: launch.signal,
    }).finally(() => signal?.removeEventListener('abort', onAbort));
    const ended = await superviseBottle(bottle, {
      ...supervision,
      records: keepsRecord ? recordsDirectory(session.paths) : undefined,
      signal,
    });
    signal?.throwIfAborted();
    const exitCode = exitCodeOf(ended);
    const broken = disk?.failure();
    if (broken !== undefined && exitCode !== 0) throw broken;
    return { exitCode, ran: ended.ran, stats: statsOf(disk) };
  } catch (error) {
    signal?.throwIfAborted();
    // A disk that could not be read is why the rest failed, and says more.
    throw disk?.failure() ?? error;
  }
}

function checkUsable({ backend, obstacles }: BottlePlan): void {
  if (obstacles.length === 0) return;
  throw new DecantError('JAIL_UNAVAILABLE', `The backend ${backend} cannot be used here: ${obstacles.join(' ')}`, {
    hint: 'decant doctor shows what this machine can do.',
  });
}

/** @throws TIMEOUT, BOTTLE_ENDED when the bottle ended under its agent */
function exitCodeOf({ exitCode, end }: SupervisedEnd): number {
  if (end.reason === 'wall-time') throw new DecantError('TIMEOUT', end.message, { retryable: false });
  if (exitCode !== undefined && end.reason === 'stopped') return exitCode;
  throw new DecantError('BOTTLE_ENDED', `The bottle ended under its agent: ${end.message}`);
}

function statsOf(disk: BottleDisk | undefined): RunStats {
  return disk?.stats() ?? { chunksFetched: 0, bytesFetched: 0, bytesVirtual: 0, rounds: 0 };
}
