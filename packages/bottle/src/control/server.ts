import { chmod, unlink } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';

import { DecantError, Scope } from '@decant/core';

import type { CopyLimits, Exec, ExecRequest } from '../backends/backend.ts';
import type { AgentSession } from './agent-session.ts';
import { Channel } from './channel.ts';
import { answer, type ActiveCall } from './calls.ts';
import { callSchema, clientMessageSchema, errorMessage, parseMessage, type BottleInfo } from './messages.ts';
import { openSocketPath, SOCKET_NAME } from './socket-path.ts';

/** What the control socket lets others do with a bottle. */
export interface ControlTarget {
  readonly agent: AgentSession;
  /** The audit of the bottle, as JSON lines. */
  readonly auditFile: string;
  readonly slug: string;
  info(): Promise<BottleInfo>;
  exec(request: ExecRequest): Promise<Exec>;
  copyIn(source: string, target: string, limits?: CopyLimits, signal?: AbortSignal): Promise<void>;
  copyOut(source: string, target: string, limits?: CopyLimits, signal?: AbortSignal): Promise<void>;
  /** What was written above the image, as an OCI layer. */
  exportChanges(signal?: AbortSignal): NodeJS.ReadableStream;
  /** Ends the bottle: TERM for the agent, KILL after the time. Resolves when nothing of it is left. */
  stop(timeoutMs: number): Promise<void>;
}

export interface ControlServer extends AsyncDisposable {
  /** Ends every call with the reason, except those that wait for the end itself. */
  endCalls(reason: string): void;
}

/** Most connections at a time; one is one call. */
const MAX_CONNECTIONS = 128;
/** Within this time a client says what it wants, milliseconds. */
const CALL_TIMEOUT_MS = 5000;
/** How long a call may still send its last words when the server closes, milliseconds. */
const CLOSE_TIMEOUT_MS = 1000;

/**
 * Serves the control socket of a bottle in a folder of its own (mode 0700); the socket has the mode 0600. A client that
 * dies ends its own call and nothing else.
 */
export async function serveControl(directory: string, target: ControlTarget): Promise<ControlServer> {
  const active = new Map<Channel, ActiveCall | undefined>();
  const sockets = new Set<Socket>();
  await using scope = new Scope();
  const at = await openSocketPath(directory);
  scope.defer(() => at[Symbol.asyncDispose]());
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    serveConnection(socket, target, active);
  });
  server.maxConnections = MAX_CONNECTIONS;
  await listen(server, at.path);
  scope.defer(async () => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    const timer = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
    }, CLOSE_TIMEOUT_MS);
    await closed;
    clearTimeout(timer);
    await unlink(join(directory, SOCKET_NAME)).catch(() => undefined);
  });
  // The folder is closed to others, so that nobody gets in before this.
  await chmod(join(directory, SOCKET_NAME), 0o600);
  const resources = scope.move();
  return {
    endCalls: (reason) => {
      for (const [channel, call] of active) {
        if (call?.outlivesBottle !== true) finish(channel, endedError(target, reason));
      }
    },
    [Symbol.asyncDispose]: () => resources[Symbol.asyncDispose](),
  };
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function endedError(target: ControlTarget, reason: string): DecantError {
  return new DecantError('BOTTLE_ENDED', `The bottle ${target.slug} has ended: ${reason}`);
}

function finish(channel: Channel, error: unknown): void {
  channel.send(errorMessage(error));
  channel.end();
}

function serveConnection(socket: Socket, target: ControlTarget, active: Map<Channel, ActiveCall | undefined>): void {
  const controller = new AbortController();
  let call: ActiveCall | undefined;
  const channel: Channel = new Channel(socket, {
    onMessage: (value) => {
      if (call !== undefined) {
        call.onMessage?.(parseMessage(clientMessageSchema, value, 'What a client said'));
        return;
      }
      clearTimeout(timer);
      try {
        call = answer(parseMessage(callSchema, value, 'The call to the bottle'), channel, target, controller.signal);
      } catch (error) {
        finish(channel, error);
        return;
      }
      active.set(channel, call);
      void call.result.then(
        (result) => {
          channel.send({ type: 'done', result });
          channel.end();
        },
        (error: unknown) => finish(channel, error),
      );
    },
    onClose: () => {
      clearTimeout(timer);
      active.delete(channel);
      controller.abort(new DecantError('HTTP_UNREACHABLE', 'The client of the bottle has gone.'));
    },
  });
  active.set(channel, undefined);
  const timer = setTimeout(() => channel.destroy(), CALL_TIMEOUT_MS);
}
