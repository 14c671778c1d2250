import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

/** File name of the control socket in the folder of a bottle's state. */
export const SOCKET_NAME = 'control.sock';

/** sockaddr_un of Linux holds 108 bytes, with a NUL at the end (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107;

/** A path by which a socket can be bound or connected to, while it is open. */
export interface SocketPath extends AsyncDisposable {
  readonly path: string;
}

/** The socket in a folder. A path that is too long for the kernel is taken through a descriptor of the folder. */
export async function openSocketPath(directory: string): Promise<SocketPath> {
  const path = join(directory, SOCKET_NAME);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return { path, [Symbol.asyncDispose]: async () => undefined };
  const folder: FileHandle = await open(directory, 'r');
  return {
    path: `/proc/self/fd/${folder.fd}/${SOCKET_NAME}`,
    [Symbol.asyncDispose]: () => folder.close(),
  };
}
