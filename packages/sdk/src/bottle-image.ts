import { join } from 'node:path';

import { DecantError, isDecantError, Scope, type ImageDetail, type OnEvent } from '@decant/core';
import type { ImageRequest, ResolvedImage } from '@decant/bottle';
import { serveNbd } from '@decant/stream';

import { workingDirOf } from './guest-command.ts';
import { openDisk } from './image-disk.ts';
import type { RunStats } from './results.ts';
import type { Session } from './session.ts';

/** The disk of a bottle, and what it has to tell at the end. */
export interface BottleDisk extends ResolvedImage {
  readonly detail: ImageDetail;
  /** Why a block could not be read, when one could not; that is why the bottle failed. */
  failure(): DecantError | undefined;
  stats(): RunStats;
}

export interface BottleDiskRequest extends ImageRequest {
  /** Let this machine's kernel mount a filesystem that decant's own writer did not make. */
  readonly trustFilesystem?: boolean | undefined;
  readonly onEvent?: OnEvent | undefined;
}

/**
 * An image by name or id as the disk of a machine: a streaming one as an NBD export that fetches what is read, an ext4
 * image as a file that is fetched first. @throws NOT_FOUND, USAGE for a filesystem that is not to be mounted
 */
export async function openBottleDisk(session: Session, request: BottleDiskRequest): Promise<BottleDisk> {
  const { ref, scratchDirectory, signal, onEvent } = request;
  await using scope = new Scope();
  const opened = scope.use(await openDisk(session, ref, { scratchDirectory, onEvent, signal }));
  const { detail } = opened;
  const filesystem = mountable(detail, request);
  const failures: unknown[] = [];
  const nbdSocket = join(scratchDirectory, 'nbd');
  if (opened.file === undefined) {
    scope.use(
      await serveNbd({
        listen: { socketPath: nbdSocket },
        exports: new Map([['', opened.disk]]),
        onError: (error) => failures.push(error),
      }),
    );
  }
  const resources = scope.move();
  const config = detail.config?.config ?? {};
  const workingDir = workingDirOf(config);
  return {
    image: {
      id: detail.image.id,
      disk: opened.file === undefined ? { nbdSocket } : { file: opened.file },
      filesystem,
      config: { ...config, ...(workingDir === undefined ? {} : { WorkingDir: workingDir }) },
    },
    detail,
    failure: () => failures.find((failure) => isDecantError(failure)),
    stats: () => opened.stats(),
    [Symbol.asyncDispose]: () => resources[Symbol.asyncDispose](),
  };
}

function mountable({ image }: ImageDetail, { ref, trustFilesystem = false }: BottleDiskRequest): 'erofs' | 'ext4' {
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
