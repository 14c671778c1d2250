import { join } from 'node:path';

import { DecantError, GIB, isDecantError, quote, type ImageDetail } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import { runImage, type GuestStreams } from '@decant/jail';
import { serveNbd } from '@decant/stream';

import { argumentsOf, environmentOf, workingDirOf } from './guest-command.ts';
import { openDisk } from './image-disk.ts';
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

export interface RunImageResult {
  /** The command's; 127 when the image has no such command, 126 when it cannot be executed. */
  readonly exitCode: number;
  /** Why nothing ran, as one sentence; undefined when something did. */
  readonly notRun: string | undefined;
  readonly stats: RunStats;
}

/** Most bytes a run can write when its image asks for no size. */
const DEFAULT_WRITE_BYTES = GIB;

export async function runImageByName(
  session: Session,
  request: RunImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<RunImageResult> {
  await using scratch = await openScratchDirectory(session.paths.scratch);
  await using opened = await openDisk(session, request.ref, { scratchDirectory: scratch.path, onEvent, signal });
  const { detail } = opened;
  const filesystem = mountable(detail, request);
  const failures: unknown[] = [];
  const socketPath = join(scratch.path, 'nbd');
  await using server =
    opened.file === undefined
      ? await serveNbd({
          listen: { socketPath },
          exports: new Map([['', opened.disk]]),
          onError: (error) => failures.push(error),
        })
      : undefined;
  const run = detail.config?.config ?? {};
  const argv = argumentsOf(run, request);
  const { exitCode, ran } = await runImage({
    disk: server === undefined ? { file: opened.file ?? '' } : { nbdSocket: socketPath },
    filesystem,
    argv,
    env: environmentOf(run),
    user: run.User,
    workingDir: workingDirOf(run),
    diskBytes: detail.diskBytes === 0 ? DEFAULT_WRITE_BYTES : detail.diskBytes,
    stdio: request.stdio ?? 'inherit',
    stateDirectory: scratch.path,
    signal,
  }).catch((error: unknown) => {
    // A disk that could not be read is why the sandbox failed, and says more.
    throw failures[0] ?? error;
  });
  const broken = failures.find((failure) => isDecantError(failure));
  if (broken !== undefined && exitCode !== 0) throw broken;
  return { exitCode, notRun: ran ? undefined : whyNotRun(request.ref, argv[0] ?? '', exitCode), stats: opened.stats() };
}

function whyNotRun(ref: string, command: string, exitCode: number): string {
  return exitCode === 127
    ? `${ref} has no command ${quote(command)}.`
    : `${quote(command)} in ${ref} is no program that its user may execute.`;
}

function mountable({ image }: ImageDetail, { ref, trustFilesystem = false }: RunImageRequest): 'erofs' | 'ext4' {
  if (image.filesystem === 'raw') {
    throw new DecantError('USAGE', `${ref} is a disk without a filesystem that decant knows.`, {
      hint: 'Attach it to a virtual machine with: decant image serve',
    });
  }
  if (image.layout === 'foreign' && !trustFilesystem) {
    throw new DecantError('USAGE', `The filesystem of ${ref} was not made by decant, so it is not mounted.`, {
      hint: "Say --trust-filesystem to let this machine's kernel mount it, or boot it in a virtual machine.",
    });
  }
  return image.filesystem;
}
