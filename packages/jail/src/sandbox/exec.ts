import { constants } from 'node:os';
import { PassThrough } from 'node:stream';

import { DecantError, quote } from '@decant/core';

import { resolveUser } from '../user.ts';
import { hex, sandboxGone, setupError, unhex, type Conversation } from './conversation.ts';
import { startInherited, type Joiners } from './joiners.ts';
import type { SandboxEntrance } from './entrance.ts';
import type { SandboxExec, SandboxExecOptions, SandboxExit, TerminalSize } from './types.ts';

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const MOST_VARIABLES = 2000;
const MOST_COMMAND_BYTES = 2 * 1024 * 1024;
const MOST_TERMINAL_SIDE = 10_000;
/** How long what was killed may take to be gone, in milliseconds. */
const KILL_MS = 10_000;
/** Exit code after SIGKILL. */
const KILLED = 128 + 9;

/** @throws USAGE for what no command can be. */
export function checkCommand(options: Omit<SandboxExecOptions, 'signal'>): void {
  const { argv, env, workingDir = '', terminal, timeoutMs, inheritStdin = false } = options;
  if (argv[0] === undefined || argv[0] === '') {
    throw new DecantError('USAGE', 'There is no command to run.', {
      hint: 'The image sets none: write one after --.',
    });
  }
  const names = Object.keys(env);
  const texts = [...argv, workingDir, ...names, ...Object.values(env)];
  if (texts.some((text) => text.includes('\0'))) {
    throw new DecantError('USAGE', 'A command, environment or working directory cannot hold a NUL character.');
  }
  if (names.some((name) => name === '' || /=|\p{Cc}/u.test(name))) {
    throw new DecantError(
      'USAGE',
      'The name of an environment variable cannot be empty or hold an equals sign or control character.',
    );
  }
  if (names.length > MOST_VARIABLES) {
    throw new DecantError('LIMIT_EXCEEDED', 'More than 2,000 environment variables.');
  }
  if (texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 1, 0) > MOST_COMMAND_BYTES) {
    throw new DecantError('LIMIT_EXCEEDED', 'A command and its environment can have 2 MiB at most.');
  }
  if (workingDir !== '' && !workingDir.startsWith('/')) {
    throw new DecantError('USAGE', `The working directory ${quote(workingDir)} is not an absolute path.`);
  }
  if (terminal !== undefined) {
    checkSize(terminal);
    if (inheritStdin) throw new DecantError('USAGE', 'A command at a terminal of its own reads what that one says.');
  }
  if (timeoutMs !== undefined && !(timeoutMs > 0 && timeoutMs < 2 ** 31)) {
    throw new DecantError('USAGE', 'A time limit is between 1 ms and 24 days.');
  }
}

function checkSize({ columns, rows }: TerminalSize): void {
  const fits = (side: number) => Number.isInteger(side) && side >= 1 && side <= MOST_TERMINAL_SIDE;
  if (!fits(columns) || !fits(rows)) {
    throw new DecantError('USAGE', `A terminal has 1 to ${MOST_TERMINAL_SIDE} columns and rows.`);
  }
}

/** Starts a command in a sandbox. */
export async function startCommand(
  entrance: SandboxEntrance,
  options: SandboxExecOptions,
  joiners: Joiners,
): Promise<SandboxExec> {
  const { signal, terminal, timeoutMs, inheritStdin = false } = options;
  checkCommand(options);
  signal?.throwIfAborted();
  const talk = inheritStdin ? startInherited(entrance) : joiners.take(entrance);
  const { child } = talk;
  let stopped: 'abort' | 'timeout' | undefined;
  let killTimer: NodeJS.Timeout | undefined;
  let hasBegun = false;
  let over = false;
  const stop = (why: 'abort' | 'timeout') => {
    if (over) return;
    stopped ??= why;
    // Before there is a command the program takes no orders but ends.
    if (hasBegun || why === 'abort') talk.send('kill');
    killTimer ??= setTimeout(() => talk.end(), KILL_MS);
  };
  const onAbort = () => stop('abort');
  signal?.addEventListener('abort', onAbort, { once: true });
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => stop('timeout'), timeoutMs);
  const done = () => {
    signal?.removeEventListener('abort', onAbort);
    clearTimeout(timer);
    clearTimeout(killTimer);
  };
  let early: SandboxExit | undefined;
  try {
    const mode = terminal !== undefined ? 'terminal' : inheritStdin ? 'outputs' : 'pipes';
    early = await begin(talk, entrance, options, mode);
    signal?.throwIfAborted();
    hasBegun = true;
    if (stopped === 'timeout') talk.send('kill');
  } catch (error) {
    done();
    talk.end();
    signal?.throwIfAborted();
    if (stopped !== 'timeout') throw error;
    // Its time was over before it ran: a slow start ends as a slow command does.
    early = { exitCode: KILLED, ran: false, timedOut: true };
  }
  if (!inheritStdin) joiners.refillAfter(talk);
  const exit = (async (): Promise<SandboxExit> => {
    try {
      if (early !== undefined) {
        over = true;
        return early;
      }
      const words = await talk.hear();
      over = true;
      talk.send('bye');
      if (stopped === 'abort') throw signal?.reason;
      if (words?.[0] === 'fail') throw setupError(unhex(words[1]), unhex(words[2]));
      if (words?.[0] !== 'exit') throw sandboxGone();
      return { exitCode: Number(words[1]), ran: true, timedOut: stopped === 'timeout' };
    } finally {
      done();
    }
  })();
  exit.catch(() => undefined);
  return {
    stdin: child.stdin ?? new PassThrough().end(),
    stdout: talk.stdout,
    stderr: talk.stderr,
    exit,
    signal(name) {
      const number = constants.signals[name] as number | undefined;
      if (number === undefined) throw new DecantError('USAGE', `There is no signal ${quote(name)}.`);
      if (!over) talk.send('signal', number);
    },
    resize(size) {
      if (terminal === undefined) throw new DecantError('USAGE', 'The command has no terminal.');
      checkSize(size);
      if (!over) talk.send('resize', size.columns, size.rows);
    },
  };
}

/** The users that are there now, for resolveUser. */
export async function usersOf(talk: Conversation): Promise<readonly string[]> {
  talk.send('users');
  return await answer(talk, 'files');
}

async function begin(
  talk: Conversation,
  { processes, filter }: SandboxEntrance,
  options: SandboxExecOptions,
  mode: 'pipes' | 'outputs' | 'terminal',
): Promise<SandboxExit | undefined> {
  const { argv, terminal } = options;
  const files = await usersOf(talk);
  const user = resolveUser(options.user, unhex(files[0]), unhex(files[1]));
  const env: Record<string, string> = { PATH: DEFAULT_PATH, HOME: user.home, ...options.env };
  if (mode === 'terminal') env['TERM'] ??= 'xterm';
  const workingDir = options.workingDir === undefined || options.workingDir === '' ? '/' : options.workingDir;
  talk.send(
    ...['run', mode, user.uid, user.gid, user.groups.length === 0 ? '-' : user.groups.join(',')],
    ...[options.makeWorkingDir === true ? 1 : 0, hex(workingDir), terminal?.columns ?? 0, terminal?.rows ?? 0],
    ...[processes, Buffer.from(filter).toString('hex'), hex(argv[0]!), hex(env['PATH']!)],
    hex(
      Object.entries(env)
        .map(([name, value]) => `${name}=${value}`)
        .join('\0'),
    ),
    ...argv.map(hex),
  );
  const [verb, value] = await answer(talk, 'started', 'missing');
  return verb === 'missing' ? { exitCode: Number(value), ran: false, timedOut: false } : undefined;
}

/** The words after the verb when only one verb will do, or all. @throws what the program says that failed. */
export async function answer(talk: Conversation, ...verbs: readonly string[]): Promise<readonly string[]> {
  const words = await talk.hear();
  const [verb, ...rest] = words ?? [];
  if (words === undefined || verb === undefined) throw sandboxGone(talk.complaint() || undefined);
  if (verb === 'fail') throw setupError(unhex(rest[0]), unhex(rest[1]));
  if (!verbs.includes(verb)) throw sandboxGone(`it said ${quote(verb)}`);
  return verbs.length === 1 ? rest : words;
}
