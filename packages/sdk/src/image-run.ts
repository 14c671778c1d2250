import type { AgentViewer, SupervisedBottle } from '@decant/bottle';
import { GIB, imageEnvironment, quote } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import { runImage, type GuestStreams } from '@decant/jail';

import { openBottleDisk } from './bottle-image.ts';
import { planFor } from './bottle-plan.ts';
import { runBottle } from './bottle-run.ts';
import { argumentsOf, workingDirOf } from './guest-command.ts';
import { inspectImage } from './image-names.ts';
import type { RunStats } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

export interface RunImageRequest {
  readonly ref: string;
  /** Replaces the image's command; its entrypoint stays, as docker has it. */
  readonly command: readonly string[];
  /** Default `inherit`: the streams of this process. */
  readonly stdio?: 'inherit' | GuestStreams | undefined;
  /** Let this machine's kernel mount a filesystem that decant's own writer did not make. */
  readonly trustFilesystem?: boolean | undefined;
}

export interface RunFencedRequest extends Omit<RunImageRequest, 'stdio'> {
  /** Hosts that it may reach by HTTP: `HOST`, `*.NAME`, `HOST:PORT`. */
  readonly allow: readonly string[];
  readonly viewer: AgentViewer;
  readonly stdin: NonNullable<GuestStreams['stdin']>;
  /** A terminal of this size instead of pipes. */
  readonly terminal?: { readonly columns: number; readonly rows: number } | undefined;
  readonly onReady?: ((ready: SupervisedBottle) => void) | undefined;
}

export interface RunImageResult {
  /** The command's; 127 when the image has no such command, 126 when it cannot be executed. */
  readonly exitCode: number;
  /** Why nothing ran, as one sentence; undefined when something did. */
  readonly notRun: string | undefined;
  readonly stats: RunStats;
}

/** Most bytes a run can write when its image asks for no size. */
const DEFAULT_WRITE_BYTES = GIB;

/** Runs a command in an image without any network: a bottle whose fence has no way through, so that it needs none. */
export async function runImageByName(
  session: Session,
  request: RunImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<RunImageResult> {
  const { ref, trustFilesystem } = request;
  await using scratch = await openScratchDirectory(session.paths.scratch);
  const image = { ref, scratchDirectory: scratch.path, trustFilesystem, onEvent, signal };
  await using opened = await openBottleDisk(session, image);
  const { disk, filesystem, config } = opened.image;
  const { diskBytes } = opened.detail;
  const argv = argumentsOf(config, request);
  const { exitCode, ran } = await runImage({
    disk,
    filesystem,
    argv,
    env: imageEnvironment(config),
    user: config.User,
    workingDir: workingDirOf(config),
    diskBytes: diskBytes === 0 ? DEFAULT_WRITE_BYTES : diskBytes,
    stdio: request.stdio ?? 'inherit',
    stateDirectory: scratch.path,
    signal,
  }).catch((error: unknown) => {
    // A disk that could not be read is why the sandbox failed, and says more.
    throw opened.failure() ?? error;
  });
  const broken = opened.failure();
  if (broken !== undefined && exitCode !== 0) throw broken;
  return { exitCode, notRun: ran ? undefined : whyNotRun(ref, argv[0] ?? '', exitCode), stats: opened.stats() };
}

/** The same in a bottle that lets some hosts through. */
export async function runFencedImage(
  session: Session,
  { ref, command, allow, trustFilesystem, ...supervision }: RunFencedRequest,
  work: WorkOptions,
): Promise<RunImageResult> {
  const { config, diskBytes } = await inspectImage(session, ref, work);
  const argv = argumentsOf(config?.config ?? {}, { ref, command });
  const limits = { diskBytes: diskBytes === 0 ? DEFAULT_WRITE_BYTES : diskBytes };
  const planned = await planFor(session, { image: ref, allow, command: argv, limits }, work);
  const { exitCode, stats } = await runBottle(
    session,
    { ...supervision, planned, trustFilesystem, detached: false, graceMs: FENCED_GRACE_MS },
    work,
  );
  return { exitCode, notRun: undefined, stats };
}

/** Between TERM and KILL of a command that is interrupted, milliseconds. */
const FENCED_GRACE_MS = 2000;

function whyNotRun(ref: string, command: string, exitCode: number): string {
  return exitCode === 127
    ? `${ref} has no command ${quote(command)}.`
    : `${quote(command)} in ${ref} is no program that its user may execute.`;
}
