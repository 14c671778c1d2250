import { availableParallelism, totalmem } from 'node:os';

import { environmentOf, planBottle, requestManifest, specOf, type BottlePlan } from '@decant/bottle';
import { GIB, MIB, quote } from '@decant/core';

import { backendOf, manifestOf, nameOfImage, type BottleRequest } from './bottle-plan.ts';
import { runBottle, type RunBottleRequest } from './bottle-run.ts';
import { argumentsOf } from './guest-command.ts';
import { inspectImage } from './image-names.ts';
import type { RunStats } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

export interface RunImageRequest
  extends
    Omit<BottleRequest, 'name' | 'image' | 'command'>,
    Pick<
      RunBottleRequest,
      'viewer' | 'stdin' | 'inheritStdin' | 'terminal' | 'graceMs' | 'onReady' | 'trustFilesystem'
    > {
  readonly ref: string;
  /** Replaces the image's command; its entrypoint stays, as docker has it. */
  readonly command: readonly string[];
}

export interface RunImageResult {
  /** The command's; 127 when the image has no such command, 126 when it cannot be executed. */
  readonly exitCode: number;
  /** Why nothing ran, as one sentence; undefined when something did. */
  readonly notRun: string | undefined;
  readonly stats: RunStats;
}

/** Most bytes a run can write when neither the request nor its image says how many, and the fewest. */
const DEFAULT_WRITE_BYTES = GIB;
const LEAST_WRITE_BYTES = 16 * MIB;
/** As many as a sandbox that nobody bounds has. */
const DEFAULT_PROCESSES = 4096;
/** The longest that a bottle can have. */
const DEFAULT_WALL_TIME_MS = 7 * 86_400_000;
/** Between TERM and KILL of a command that is interrupted, milliseconds. */
const GRACE_MS = 2000;

/**
 * Runs a command in an image: a bottle of its own, of which nothing is kept. Without a host that it may reach it has no fence but a
 * network namespace with nothing in it. Limits that are left out are those of the machine.
 * @throws what `bottles.run` throws; USAGE when there is no command
 */
export async function runImageByName(
  session: Session,
  { ref, command, graceMs = GRACE_MS, ...request }: RunImageRequest,
  work: WorkOptions,
): Promise<RunImageResult> {
  const { config, diskBytes } = await inspectImage(session, ref, work);
  const argv = argumentsOf(config?.config ?? {}, { ref, command });
  const { plan, environment } = await planOneOff(session, { ...request, image: ref }, diskBytes);
  const { viewer, stdin, inheritStdin, terminal, onReady, trustFilesystem } = request;
  const { exitCode, ran, stats } = await runBottle(
    session,
    {
      ...{ viewer, stdin, inheritStdin, terminal, onReady, trustFilesystem, graceMs },
      planned: { plan, environment, files: [], backend: backendOf(session, plan.backend) },
      command: argv,
      detached: false,
      keepsRecord: false,
    },
    work,
  );
  return { exitCode, notRun: ran ? undefined : whyNotRun(ref, argv[0] ?? '', exitCode), stats };
}

/** The plan of a bottle for one command. Its command is not in it, since that may be longer than what plans hold. */
async function planOneOff(
  session: Session,
  request: BottleRequest & { readonly image: string },
  diskBytes: number,
): Promise<{ readonly plan: BottlePlan; readonly environment: Readonly<Record<string, string>> }> {
  const { allow = [], limits = {} } = request;
  const asked = requestManifest({
    name: nameOfImage(request.image),
    ...manifestOf(request),
    ...(allow.length === 0 ? { egress: { sealed: true } } : {}),
  });
  const { spec, environment } = specOf(asked);
  const isBounded = Object.values(limits).some((limit) => limit !== undefined);
  const plan = await planBottle(
    {
      ...spec,
      limits: {
        cpus: limits.cpus ?? availableParallelism(),
        memoryBytes: limits.memoryBytes ?? totalmem(),
        processes: limits.processes ?? DEFAULT_PROCESSES,
        diskBytes: limits.diskBytes ?? Math.max(LEAST_WRITE_BYTES, diskBytes === 0 ? DEFAULT_WRITE_BYTES : diskBytes),
        wallTimeMs: limits.wallTimeMs ?? DEFAULT_WALL_TIME_MS,
        bestEffort: !isBounded,
      },
    },
    // Nobody is shown this plan: what this machine cannot do is told by the launch, sooner than by a probe of everything.
    { backend: { ...backendOf(session, spec.backend), probe: () => Promise.resolve(PROBED) } },
  );
  return { plan, environment: environmentOf(environment) };
}

const PROBED = { usable: true, reasons: [], weaknesses: [] } as const;

function whyNotRun(ref: string, command: string, exitCode: number): string {
  return exitCode === 127
    ? `${ref} has no command ${quote(command)}.`
    : `${quote(command)} in ${ref} is no program that its user may execute.`;
}
