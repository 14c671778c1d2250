import { request } from 'node:http';
import { text } from 'node:stream/consumers';

import { DecantError, errnoOf, MIB, quote } from '@decant/core';

const DEFAULT_SOCKET = '/var/run/docker.sock';
const TIMEOUT_MS = 60_000;
const MOST_ANSWER_BYTES = 4 * MIB;

export interface EngineCall {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** Of the API without a version; its parts are already encoded. */
  readonly path: string;
  readonly json?: object | undefined;
  readonly tar?: Uint8Array | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface EngineAnswer {
  readonly status: number;
  /** The JSON document that was answered; the text where it is none. */
  readonly body: unknown;
}

/** The Engine API of the daemon behind a Unix socket. Nothing that is said to it is ever an argument of a command. */
export interface Engine {
  readonly socket: string;
  /** @throws JAIL_UNAVAILABLE when it does not answer, TIMEOUT */
  call(call: EngineCall): Promise<EngineAnswer>;
}

/**
 * The path of a daemon's socket as `DOCKER_HOST` names it; without one, the usual path.
 * @throws JAIL_UNAVAILABLE for a daemon elsewhere: its namespaces are not those of this machine, and the fence needs them.
 */
export function socketOf(host: string | undefined): string {
  if (host === undefined || host === '') return DEFAULT_SOCKET;
  const path = host.startsWith('unix://') ? host.slice('unix://'.length) : '';
  if (path.startsWith('/') && !path.includes('\0')) return path;
  throw new DecantError('JAIL_UNAVAILABLE', `The Docker daemon at ${quote(host)} is not on a Unix socket.`, {
    hint: 'Bottles need a daemon on this machine: set DOCKER_HOST to unix:///path, or unset it.',
  });
}

export function openEngine(socket: string): Engine {
  return { socket, call: (call) => callEngine(socket, call) };
}

async function callEngine(socket: string, { method, path, json, tar, signal }: EngineCall): Promise<EngineAnswer> {
  signal?.throwIfAborted();
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const body = tar ?? (json === undefined ? undefined : Buffer.from(JSON.stringify(json)));
  const type = tar === undefined ? 'application/json' : 'application/x-tar';
  try {
    return await new Promise<EngineAnswer>((resolve, reject) => {
      const asked = request({
        ...{ socketPath: socket, method, path, agent: false },
        headers: {
          Host: 'docker',
          ...(body === undefined ? {} : { 'Content-Type': type, 'Content-Length': body.length }),
        },
        signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      });
      asked.once('error', reject);
      asked.once('response', (response) => {
        let size = 0;
        response.on('data', (piece: Buffer) => {
          size += piece.length;
          if (size > MOST_ANSWER_BYTES) response.destroy(new Error(`more than ${MOST_ANSWER_BYTES} bytes`));
        });
        text(response).then((answer) => resolve({ status: response.statusCode ?? 0, body: parsed(answer) }), reject);
      });
      asked.end(body);
    });
  } catch (error) {
    signal?.throwIfAborted();
    if (timeout.aborted) {
      throw new DecantError('TIMEOUT', `The Docker daemon did not answer within ${TIMEOUT_MS} ms.`, { cause: error });
    }
    const why = errnoOf(error) ?? (error instanceof Error ? error.message : String(error));
    throw new DecantError('JAIL_UNAVAILABLE', `The Docker daemon at ${quote(socket)} cannot be reached: ${why}.`, {
      hint: 'Start the daemon, or set DOCKER_HOST to the unix:// address of its socket.',
      cause: error,
    });
  }
}

function parsed(answer: string): unknown {
  try {
    return JSON.parse(answer) as unknown;
  } catch {
    return answer;
  }
}

/** What the daemon says that is wrong. */
export function refusal(what: string, { status, body }: EngineAnswer): DecantError {
  const said = typeof body === 'object' && body !== null ? (body as { message?: unknown }).message : body;
  const why = typeof said === 'string' ? (said.trim().split('\n')[0] ?? '').slice(0, 500) : '';
  return new DecantError('JAIL_FAILED', `The Docker daemon could not ${what} (status ${status}): ${why}`, {
    details: { status },
  });
}
