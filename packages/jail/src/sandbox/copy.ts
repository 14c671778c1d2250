import { realpath } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { DecantError, GIB, quote } from '@decant/core';

import { resolveUser } from '../user.ts';
import { converse, hex, sandboxGone, unhex, type Conversation } from './conversation.ts';
import { RECEIVE_TASK, SEND_TASK } from './copy-tasks.ts';
import { answer, usersOf } from './exec.ts';
import { joinProgram } from './join-program.ts';
import { join } from './joiners.ts';
import { isWithin } from './mounts.ts';
import { CopyCount, readTree } from './tree-reader.ts';
import { writeTree } from './tree-writer.ts';
import type { SandboxEntrance } from './entrance.ts';
import type { SandboxCopyLimits } from './types.ts';

const DEFAULT_LIMITS: SandboxCopyLimits = { entries: 1_000_000, bytes: 16 * GIB };
const RECEIVE_PROGRAM = joinProgram(RECEIVE_TASK);
const SEND_PROGRAM = joinProgram(SEND_TASK);

export interface CopyOptions {
  /** Owner inside, as in an image's config. */
  readonly user: string | undefined;
  /** Folders of the host that commands inside can change. */
  readonly shared: readonly string[];
  readonly limits?: SandboxCopyLimits | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** See Sandbox.copyIn. */
export async function copyIn(
  entrance: SandboxEntrance,
  source: string,
  target: string,
  { user, shared, limits = DEFAULT_LIMITS, signal }: CopyOptions,
): Promise<void> {
  checkInside(target);
  await refuseShared(source, source, shared);
  await withTask(RECEIVE_PROGRAM, entrance, { args: [target, basename(source)], user, signal }, async (talk) => {
    const { stdin } = talk.child;
    const { stdout } = talk;
    let said = '';
    stdout.setEncoding('latin1');
    stdout.on('data', (text: string) => (said = (said + text).slice(0, 65_536)));
    const ended = new Promise<void>((resolve) => stdout.once('close', resolve));
    let failure: unknown;
    // When the other side gives up early, what it says counts for more than the broken pipe.
    await pipeline(Readable.from(readTree(source, new CopyCount(limits), signal)), stdin!).catch((error: unknown) => {
      failure = error;
      talk.end();
    });
    await ended;
    signal?.throwIfAborted();
    const [verb, why] = said.trim().split(' ');
    if (verb === 'fail') throw new DecantError('USAGE', `It cannot be copied in: ${quote(unhex(why))}.`);
    // It has all of it, and may have ended before the pipe was closed from here.
    if (verb === 'ok') return;
    throw failure ?? sandboxGone();
  });
}

/** See Sandbox.copyOut. */
export async function copyOut(
  entrance: SandboxEntrance,
  source: string,
  target: string,
  { shared, limits = DEFAULT_LIMITS, signal }: CopyOptions,
): Promise<void> {
  checkInside(source);
  await refuseShared(target, dirname(target), shared);
  await withTask(SEND_PROGRAM, entrance, { args: [source], user: undefined, signal }, async (talk) => {
    talk.child.stdin!.end();
    await writeTree(talk.stdout, target, new CopyCount(limits), signal);
  });
}

/** Runs a task of copy-tasks.ts or file-task.ts inside; it has ended when this settles. */
export async function withTask(
  program: string,
  entrance: SandboxEntrance,
  {
    args,
    user,
    signal,
  }: { readonly args: readonly string[]; readonly user: string | undefined; readonly signal: AbortSignal | undefined },
  use: (talk: Conversation) => Promise<void>,
): Promise<void> {
  signal?.throwIfAborted();
  const talk = converse(program, ['pipe', 'pipe', 'ignore']);
  talk.child.stdin!.on('error', () => undefined);
  const onAbort = () => talk.end();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    join(talk, entrance);
    const files = await usersOf(talk);
    const { uid, gid } = resolveUser(user, unhex(files[0]), unhex(files[1]));
    const filter = Buffer.from(entrance.filter).toString('hex');
    talk.send('run', 'task', uid, gid, '-', 0, '-', 0, 0, entrance.processes, filter, '-', '-', '-', ...args.map(hex));
    await answer(talk, 'started');
    await use(talk);
    // What had come before the abort was enough for it, but nobody waits for it any more.
    signal?.throwIfAborted();
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    talk.end();
    await talk.exited;
  }
}

export function checkInside(path: string): void {
  if (path.startsWith('/') && !path.includes('\0')) return;
  throw new DecantError('USAGE', `${quote(path)} is not an absolute path inside.`);
}

/** What commands inside can change at any moment is not walked from outside. */
async function refuseShared(shown: string, path: string, shared: readonly string[]): Promise<void> {
  const real = await realpath(path).catch(() => path);
  const folder = shared.find((candidate) => isWithin(real, candidate) || isWithin(candidate, real));
  if (folder === undefined) return;
  throw new DecantError(
    'USAGE',
    `${quote(shown)} is not copied, because ${quote(folder)} can be written from inside.`,
    {
      hint: 'The folder is mounted, so nothing needs to be copied between it and the sandbox.',
    },
  );
}
