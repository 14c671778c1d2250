import { lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { umask } from 'node:process';

import { DecantError, errnoOf, quote } from '@decant/core';

import { negotiate, type NbdExports } from './nbd-negotiation.ts';
import { transmit } from './nbd-transmission.ts';
import { SocketReader } from './socket-reader.ts';

export interface ServeNbdOptions {
  /** A Unix socket (made with mode 0600, removed at the end), or a TCP address (port 0 for any free one). */
  readonly listen: { readonly socketPath: string } | { readonly host: string; readonly port: number };
  /** The disks by export name. Read at each handshake, so that exports may come and go. */
  readonly exports: NbdExports;
  /** Clients beyond this are turned away; default 32. Each may hold 32 MiB of answers. */
  readonly maxConnections?: number | undefined;
  /** Milliseconds for a client to choose an export; default 10,000. */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Told of reads that failed (the client sees EIO) and of clients that broke the protocol. */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** Closes the server. */
  readonly signal?: AbortSignal | undefined;
}

export interface NbdServer extends AsyncDisposable {
  /** `nbd+unix:///?socket=…` or `nbd://host:port/`, for the default export. */
  readonly uri: string;
  /** The TCP port, or undefined on a Unix socket. */
  readonly port: number | undefined;
  /** Clients connected now. */
  readonly connections: number;
  /** Stops listening, cuts all connections and resolves when everything is closed. */
  close(): Promise<void>;
}

/** sun_path has 108 bytes with its final zero. */
const LONGEST_SOCKET_PATH = 107;

/**
 * Serves disks over NBD, read-only. Every client may open several connections. Requests that reach outside a
 * disk or over 32 MiB give EINVAL, writes EPERM, failed reads EIO.
 * @throws USAGE for a path that cannot be a socket, CONFLICT when another server listens there.
 */
export async function serveNbd(options: ServeNbdOptions): Promise<NbdServer> {
  const { signal, maxConnections = 32, handshakeTimeoutMs = 10_000, onError = () => undefined } = options;
  signal?.throwIfAborted();
  if ('socketPath' in options.listen) await makeRoom(options.listen.socketPath);
  const sockets = new Set<Socket>();
  const stopping = new AbortController();
  const server = createServer((socket) => {
    if (sockets.size >= maxConnections) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    void talk(socket);
  });
  const address = await listen(server, options.listen);

  async function talk(socket: Socket): Promise<void> {
    socket.setNoDelay(true);
    const reader = new SocketReader(socket);
    const gone = new AbortController();
    socket.once('close', () => gone.abort());
    const timer = setTimeout(() => socket.destroy(), handshakeTimeoutMs);
    try {
      const chosen = await negotiate(socket, reader, options.exports);
      clearTimeout(timer);
      if (chosen !== undefined) {
        const readSignal = AbortSignal.any([gone.signal, stopping.signal]);
        await transmit(socket, reader, chosen.disk, { signal: readSignal, onReadError: onError });
      }
      socket.end();
    } catch (error) {
      onError(error);
      socket.destroy();
    } finally {
      clearTimeout(timer);
    }
    // A client that does not close its side is not waited for longer than a new one would be.
    const linger = setTimeout(() => socket.destroy(), handshakeTimeoutMs);
    socket.once('close', () => clearTimeout(linger));
    if (socket.destroyed) clearTimeout(linger);
    socket.resume();
  }

  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= new Promise<void>((resolve) => {
      signal?.removeEventListener('abort', onAbort);
      stopping.abort();
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
    return closing;
  };
  const onAbort = () => void close();
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted === true) {
    await close();
    throw signal.reason;
  }
  return {
    uri: address.uri,
    port: address.port,
    get connections() {
      return sockets.size;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function listen(server: Server, at: ServeNbdOptions['listen']): Promise<{ uri: string; port?: number }> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      const where = 'socketPath' in at ? at.socketPath : `${at.host}:${at.port}`;
      reject(
        errnoOf(error) === 'EADDRINUSE'
          ? new DecantError('CONFLICT', `Another program listens on ${where}.`, { cause: error })
          : new DecantError('USAGE', `Cannot listen on ${where}: ${error.message}`, { cause: error }),
      );
    });
    const listenOptions: ListenOptions =
      'socketPath' in at ? { path: at.socketPath } : { host: at.host, port: at.port };
    // The socket is bound within the call, so that it never exists with a wider mode.
    const before = 'socketPath' in at ? umask(0o177) : undefined;
    try {
      server.listen(listenOptions, resolve);
    } finally {
      if (before !== undefined) umask(before);
    }
  });
  if ('socketPath' in at) return { uri: `nbd+unix:///?socket=${encodeURIComponent(at.socketPath)}` };
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : at.port;
  const host = at.host.includes(':') ? `[${at.host}]` : at.host;
  return { uri: `nbd://${host}:${port}/`, port };
}

/** Removes the socket of a server that has ended without cleaning up. */
async function makeRoom(path: string): Promise<void> {
  if (Buffer.byteLength(path) > LONGEST_SOCKET_PATH) {
    throw new DecantError('USAGE', `The socket path ${quote(path)} is too long.`, {
      hint: `Choose a path of at most ${LONGEST_SOCKET_PATH} bytes, for example under /tmp or /run.`,
    });
  }
  try {
    const found = await lstat(path);
    if (!found.isSocket()) {
      throw new DecantError('USAGE', `${quote(path)} exists and is not a socket.`, { hint: 'Choose another path.' });
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  const alive = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => resolve(errnoOf(error) !== 'ECONNREFUSED' && errnoOf(error) !== 'ENOENT'));
  });
  if (alive) throw new DecantError('CONFLICT', `Another program listens on ${quote(path)}.`);
  await unlink(path).catch(() => undefined);
}
