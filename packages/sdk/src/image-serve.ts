import { resolve } from 'node:path';

import { Scope } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import { serveNbd } from '@decant/stream';

import { openDisk } from './image-disk.ts';
import type { Session, WorkOptions } from './session.ts';

export interface ServeImageRequest {
  readonly ref: string;
  /** Unix socket to listen on; made with mode 0600. */
  readonly socketPath: string;
}

/** An image that is being served over NBD. */
export interface ServedImage extends AsyncDisposable {
  /** For clients: `nbd+unix:///?socket=…`. */
  readonly uri: string;
  readonly exportName: string;
  readonly sizeBytes: number;
}

export async function serveImage(
  session: Session,
  { ref, socketPath }: ServeImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<ServedImage> {
  await using scope = new Scope();
  const scratch = scope.use(await openScratchDirectory(session.paths.scratch));
  const opened = scope.use(await openDisk(session, ref, { scratchDirectory: scratch.path, onEvent, signal }));
  const exportName =
    opened.detail.name === null ? opened.detail.image.id : `${opened.detail.name}:${opened.detail.tag}`;
  const server = scope.use(
    await serveNbd({
      listen: { socketPath: resolve(socketPath) },
      exports: new Map([[exportName, opened.disk]]),
      onError: (error) => {
        const message = error instanceof Error ? error.message : String(error);
        onEvent?.({ type: 'warning', stage: 'fetch', message });
      },
    }),
  );
  const resources = scope.move();
  return {
    uri: server.uri,
    exportName,
    sizeBytes: opened.disk.sizeBytes,
    [Symbol.asyncDispose]: () => resources[Symbol.asyncDispose](),
  };
}
