import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

import { DecantError, isErrorCode, type ProgressEvent } from '@decant/core';
import { z } from 'zod';

import { recordsDirectory } from './bottle-directories.ts';
import type { Session, WorkOptions } from './session.ts';

/** The descriptor by which a detached supervisor tells how its start went: one JSON document a line. */
export const STATUS_FD = 3;

const statusSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('event'), event: z.custom<ProgressEvent>((value) => typeof value === 'object') }),
  z.object({ type: z.literal('ready'), slug: z.string(), pid: z.int() }),
  z.object({
    type: z.literal('error'),
    error: z.object({
      code: z.string(),
      message: z.string(),
      hint: z.string().optional(),
      details: z.record(z.string(), z.unknown()).optional(),
    }),
  }),
]);
export type SupervisorStatus = z.input<typeof statusSchema>;

export interface DetachRequest {
  /** Program and arguments of the supervisor: a process that runs one bottle and writes its status to STATUS_FD. */
  readonly command: readonly [string, ...string[]];
  readonly env?: NodeJS.ProcessEnv | undefined;
}

export interface DetachedBottle {
  readonly slug: string;
  readonly pid: number;
}

/** Longest start; an image that is one disk is fetched within it. */
const START_TIMEOUT_MS = 600_000;
const STOP_TIMEOUT_MS = 20_000;
const MAX_TAIL_BYTES = 4096;

/**
 * Starts a supervisor that outlives this process, in a session of its own, and waits until its bottle runs or the start
 * has failed. What it says afterwards is kept with the bottle's record.
 * @throws the supervisor's error; TIMEOUT; PROCESS_FAILED when it died without one
 */
export async function startDetached(
  session: Session,
  { command, env }: DetachRequest,
  { onEvent, signal }: WorkOptions,
): Promise<DetachedBottle> {
  signal?.throwIfAborted();
  const records = recordsDirectory(session.paths);
  await mkdir(records, { recursive: true, mode: 0o700 });
  // The supervisor gives it its place once it knows its slug.
  const logFile = join(records, `.starting-${randomBytes(8).toString('hex')}.log`);
  const log = await open(logFile, 'wx', 0o600);
  const [program, ...args] = command;
  const child = spawn(program, args, {
    env: { ...(env ?? process.env), DECANT_SUPERVISOR_LOG: logFile },
    detached: true,
    stdio: ['ignore', log.fd, log.fd, 'pipe'],
  });
  const status = child.stdio[STATUS_FD] as Readable;
  const stop = () => void child.kill('SIGTERM');
  const timer = setTimeout(stop, START_TIMEOUT_MS);
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const exited = new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', () => resolve());
    });
    exited.catch(() => undefined);
    for await (const line of createInterface({ input: status })) {
      const message = statusSchema.parse(JSON.parse(line));
      if (message.type === 'event') onEvent?.(message.event);
      else if (message.type === 'ready') {
        child.unref();
        return { slug: message.slug, pid: message.pid };
      } else throw remoteError(message.error);
    }
    await Promise.race([exited, new Promise((resolve) => setTimeout(resolve, STOP_TIMEOUT_MS).unref())]);
    signal?.throwIfAborted();
    const said = (await readFile(logFile, 'utf8').catch(() => '')).slice(-MAX_TAIL_BYTES);
    throw new DecantError('PROCESS_FAILED', 'The supervisor of the bottle ended before the bottle ran.', {
      details: { lastLines: said.trimEnd() },
    });
  } catch (error) {
    // What died left its output to us.
    await rm(logFile, { force: true });
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
    status.destroy();
    await log.close();
  }
}

function remoteError(error: Extract<SupervisorStatus, { type: 'error' }>['error']): DecantError {
  const { code, message, hint, details } = error;
  return new DecantError(isErrorCode(code) ? code : 'INTERNAL', message, { hint, details: details ?? {} });
}
