import { createConnection, type Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';

import { DecantError, errnoOf, quote } from '@decant/core';

import type { Exec, ExecExit, ExecRequest } from '../backends/backend.ts';
import { Channel, STREAM } from './channel.ts';
import { CONTROL_VERSION } from './frames.ts';
import {
  bottleInfoSchema,
  errorOf,
  exitSchema,
  parseMessage,
  serverMessageSchema,
  type BottleInfo,
  type Call,
} from './messages.ts';
import { openSocketPath } from './socket-path.ts';

export interface RemoteExecRequest extends Omit<ExecRequest, 'signal' | 'inheritStdin'> {
  /** Whether anything will be written to `stdin`; default false: the command reads the end at once. */
  readonly stdin?: boolean | undefined;
}

export interface AttachRequest {
  /** Default false: only look on. */
  readonly stdin?: boolean | undefined;
  readonly terminal?: { readonly columns: number; readonly rows: number } | undefined;
}

export interface FollowLogRequest {
  readonly follow?: boolean | undefined;
  /** Only so many lines before the end of what there is. */
  readonly tailLines?: number | undefined;
}

/** A command or the agent in a bottle of another process. Disposing of it leaves; a command ends then, the agent does not. */
export interface RemoteExec extends Exec, Disposable {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
}

/** Output of the agent: streams that end together with `done`. */
export interface RemoteOutput {
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly done: Promise<void>;
}

/** Talks to the supervisor of a bottle; each call has a connection of its own. */
export interface BottleClient {
  info(signal?: AbortSignal): Promise<BottleInfo>;
  exec(request: RemoteExecRequest, signal?: AbortSignal): Promise<RemoteExec>;
  attach(request: AttachRequest, signal?: AbortSignal): Promise<RemoteExec>;
  /** Paths of the host are absolute. */
  copyIn(source: string, target: string, signal?: AbortSignal): Promise<void>;
  copyOut(source: string, target: string, signal?: AbortSignal): Promise<void>;
  logs(request: FollowLogRequest, signal?: AbortSignal): Promise<RemoteOutput>;
  audit(signal?: AbortSignal): Promise<RemoteOutput>;
  /** What was written above the image, as an OCI layer; the stream fails when it was cut short. */
  changes(signal?: AbortSignal): Promise<RemoteOutput>;
  /** Resolves when nothing of the bottle is left. */
  stop(timeoutMs: number, signal?: AbortSignal): Promise<void>;
}

/** Time for the supervisor to accept a connection, and to answer what needs no work, milliseconds. */
const CONNECT_TIMEOUT_MS = 5000;

/** Client of the bottle whose state is in a folder. Nothing is connected until a call is made. */
export function createBottleClient(slug: string, directory: string): BottleClient {
  const at = { slug, directory };
  return {
    async info(signal) {
      const call = await openCall(at, { version: CONTROL_VERSION, call: 'info' }, signal);
      const timer = setTimeout(() => call.leave(silent(slug)), CONNECT_TIMEOUT_MS);
      try {
        return parseMessage(bottleInfoSchema, await call.result, 'What the bottle says about itself');
      } finally {
        clearTimeout(timer);
      }
    },
    exec: async ({ stdin = false, ...request }, signal) =>
      remoteExec(await openCall(at, { version: CONTROL_VERSION, call: 'exec', ...asCall(request), stdin }, signal)),
    attach: async ({ stdin = false, terminal }, signal) =>
      remoteExec(await openCall(at, { version: CONTROL_VERSION, call: 'attach', stdin, terminal }, signal)),
    copyIn: async (source, target, signal) => {
      await (
        await openCall(at, { version: CONTROL_VERSION, call: 'copy-in', source, target }, signal)
      ).result;
    },
    copyOut: async (source, target, signal) => {
      await (
        await openCall(at, { version: CONTROL_VERSION, call: 'copy-out', source, target }, signal)
      ).result;
    },
    logs: async ({ follow = false, tailLines }, signal) =>
      remoteOutput(await openCall(at, { version: CONTROL_VERSION, call: 'logs', follow, tailLines }, signal)),
    audit: async (signal) => remoteOutput(await openCall(at, { version: CONTROL_VERSION, call: 'audit' }, signal)),
    changes: async (signal) => remoteOutput(await openCall(at, { version: CONTROL_VERSION, call: 'changes' }, signal)),
    stop: async (timeoutMs, signal) => {
      await (
        await openCall(at, { version: CONTROL_VERSION, call: 'stop', timeoutMs }, signal)
      ).result;
    },
  };
}

function asCall({ argv, env, user, workingDir, terminal, timeoutMs }: Omit<RemoteExecRequest, 'stdin'>) {
  return { argv: [...argv], env: env === undefined ? undefined : { ...env }, user, workingDir, terminal, timeoutMs };
}

interface OpenCall {
  readonly channel: Channel;
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Resolves when streams may flow. */
  readonly started: Promise<void>;
  readonly result: Promise<unknown>;
  /** Closes the connection; `result` rejects with the reason unless it has settled. */
  leave(reason: unknown): void;
}

interface At {
  readonly slug: string;
  readonly directory: string;
}

async function openCall(at: At, call: Call, signal: AbortSignal | undefined): Promise<OpenCall> {
  signal?.throwIfAborted();
  const socket = await connect(at);
  const started = Promise.withResolvers<void>();
  const result = Promise.withResolvers<unknown>();
  started.promise.catch(() => undefined);
  result.promise.catch(() => undefined);
  const fail = (error: unknown) => {
    started.reject(error);
    result.reject(error);
  };
  const onAbort = () => leave(signal?.reason);
  const channel = new Channel(socket, {
    onMessage: (value) => {
      const message = parseMessage(serverMessageSchema, value, `The answer of the bottle ${at.slug}`);
      if (message.type === 'started') started.resolve();
      else if (message.type === 'done') {
        started.resolve();
        result.resolve(message.result);
      } else fail(errorOf(message.error));
    },
    onClose: (error) => {
      signal?.removeEventListener('abort', onAbort);
      fail(error ?? gone(at.slug));
    },
  });
  const leave = (reason: unknown) => {
    fail(reason);
    channel.destroy();
  };
  const streams = {
    stdin: channel.outgoing(STREAM.stdin),
    stdout: channel.incoming(STREAM.stdout),
    stderr: channel.incoming(STREAM.stderr),
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    channel.send(call);
  } catch (error) {
    leave(error);
    throw error;
  }
  return { channel, ...streams, started: started.promise, result: result.promise, leave };
}

async function connect({ slug, directory }: At): Promise<Socket> {
  await using at = await openSocketPath(directory).catch((error: unknown) => {
    throw errnoOf(error) === 'ENOENT' ? notFound(slug) : error;
  });
  return await new Promise<Socket>((resolve, reject) => {
    const socket = createConnection(at.path);
    const timer = setTimeout(() => {
      socket.destroy();
      reject(silent(slug));
    }, CONNECT_TIMEOUT_MS);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error) => {
      clearTimeout(timer);
      const errno = errnoOf(error);
      reject(errno === 'ENOENT' ? notFound(slug) : errno === 'ECONNREFUSED' ? gone(slug) : error);
    });
  });
}

function notFound(slug: string): DecantError {
  return new DecantError('NOT_FOUND', `There is no running bottle ${quote(slug)}.`, {
    hint: 'decant bottle ls shows those that run.',
  });
}

function gone(slug: string): DecantError {
  return new DecantError('BOTTLE_ENDED', `The bottle ${quote(slug)} has ended: its supervisor is gone.`, {
    hint: 'decant bottle gc removes what it left.',
  });
}

function silent(slug: string): DecantError {
  return new DecantError('TIMEOUT', `The supervisor of the bottle ${quote(slug)} does not answer.`, {
    hint: 'It may be stopped or overloaded; its process is shown by: decant bottle ls',
  });
}

async function remoteExec(call: OpenCall): Promise<RemoteExec> {
  await call.started;
  const { channel, stdin, stdout, stderr } = call;
  const exit = call.result.then((result): ExecExit => parseMessage(exitSchema, result, 'The exit of a command'));
  exit.catch(() => undefined);
  return {
    stdin,
    stdout,
    stderr,
    exit,
    signal: (name) => Promise.resolve(channel.send({ type: 'signal', name })),
    resize: ({ columns, rows }) => Promise.resolve(channel.send({ type: 'resize', columns, rows })),
    [Symbol.dispose]: () => call.leave(new DecantError('BOTTLE_ENDED', 'The call was left before its end.')),
  };
}

async function remoteOutput(call: OpenCall): Promise<RemoteOutput> {
  const { stdout, stderr } = call;
  await call.started;
  // Told by `done`, too.
  stdout.on('error', () => undefined);
  const done = call.result.then(
    () => undefined,
    (error: unknown) => {
      // A stream that merely ended would look whole.
      stdout.destroy(error as Error);
      throw error;
    },
  );
  done.catch(() => undefined);
  return { stdout, stderr, done };
}
