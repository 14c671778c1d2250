import { spawn, type ChildProcess } from 'node:child_process';
import { access, constants, stat } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { StringDecoder } from 'node:string_decoder';

import { DecantError, errnoOf } from '../errors.ts';

export interface RunOptions {
  readonly cwd?: string;
  /** The whole environment of the child; default: this process's. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Bytes for standard input; default: none (the child reads end of file). */
  readonly input?: string | Uint8Array | AsyncIterable<Uint8Array>;
  /**
   * The descriptor of an open file that gets standard output, for a program that writes very many small pieces, each of
   * which would wake this process. `stdout` of the result is empty then, and `onLine` gets standard error alone.
   */
  readonly stdoutFile?: number | undefined;
  /** Most bytes kept of each of stdout and stderr, from the end; default 1 MiB. */
  readonly keepBytes?: number;
  /** Milliseconds until the process group is ended; default none. */
  readonly timeoutMs?: number;
  /** Milliseconds between TERM and KILL on abort or timeout; default 2,000. */
  readonly killAfterMs?: number;
  /** Each line of output as it comes, without its end; lines over 64 KiB are cut into pieces. */
  readonly onLine?: (line: string, stream: 'stdout' | 'stderr') => void;
  /** Exit codes that are not errors; default [0]. */
  readonly okCodes?: readonly number[];
  readonly signal?: AbortSignal | undefined;
}

export interface RunResult {
  readonly exitCode: number | null;
  readonly signalName: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

/**
 * Runs a program in a process group of its own and waits for its end. Aborting ends the whole group (TERM,
 * then KILL) and rethrows the signal's reason once it is gone.
 * @throws PROCESS_MISSING when it cannot be found, PROCESS_FAILED (with the last lines) when it fails, TIMEOUT.
 */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { signal, timeoutMs, okCodes = [0], killAfterMs = 2000 } = options;
  signal?.throwIfAborted();
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: [options.input === undefined ? 'ignore' : 'pipe', options.stdoutFile ?? 'pipe', 'pipe'],
    detached: true,
  });
  const stdout = collect(child, 'stdout', options);
  const stderr = collect(child, 'stderr', options);
  const ended = waitForEnd(child, command);
  let stopped: 'abort' | 'timeout' | undefined;
  const stop = (why: 'abort' | 'timeout') => {
    stopped ??= why;
    void endGroup(child, killAfterMs);
  };
  const onAbort = () => stop('abort');
  signal?.addEventListener('abort', onAbort, { once: true });
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => stop('timeout'), timeoutMs);
  try {
    const [{ exitCode, signalName }] = await Promise.all([ended, feed(child, options.input)]);
    if (stopped === 'abort') throw signal?.reason;
    const result = { exitCode, signalName, stdout: stdout(), stderr: stderr() };
    if (stopped === 'timeout') {
      throw new DecantError('TIMEOUT', `${command} did not end within ${timeoutMs} ms.`, { details: tail(result) });
    }
    if (exitCode === null || !okCodes.includes(exitCode)) {
      const how = exitCode === null ? `was ended by ${signalName}` : `ended with status ${exitCode}`;
      const { lastLines } = tail(result);
      throw new DecantError('PROCESS_FAILED', `${command} ${how}${lastLines === '' ? '' : `: ${lastLines}`}`, {
        details: { command, args, exitCode, signalName, ...tail(result) },
      });
    }
    return result;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

function waitForEnd(child: ChildProcess, command: string) {
  return new Promise<{ exitCode: number | null; signalName: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('error', (error) => {
      if (errnoOf(error) === 'ENOENT') {
        reject(new DecantError('PROCESS_MISSING', `The program ${command} is not installed.`, { cause: error }));
      } else {
        reject(
          new DecantError('PROCESS_FAILED', `${command} could not be started: ${error.message}`, { cause: error }),
        );
      }
    });
    child.once('close', (exitCode, signalName) => resolve({ exitCode, signalName }));
  });
}

async function feed(child: ChildProcess, input: RunOptions['input']): Promise<void> {
  const { stdin } = child;
  if (stdin === null || input === undefined) return;
  // A child that stops reading early is judged by its exit code, not by the broken pipe.
  stdin.on('error', () => undefined);
  if (typeof input === 'string' || input instanceof Uint8Array) {
    stdin.end(input);
    return;
  }
  const closed = new Promise<void>((resolve) => stdin.once('close', resolve));
  try {
    for await (const piece of input) {
      if (stdin.destroyed) break;
      if (!stdin.write(piece)) {
        await Promise.race([new Promise<void>((resolve) => stdin.once('drain', resolve)), closed]);
      }
    }
  } finally {
    stdin.end();
  }
}

const LONGEST_LINE = 64 * 1024;

function collect(child: ChildProcess, name: 'stdout' | 'stderr', options: RunOptions): () => Buffer {
  const { keepBytes = 1024 * 1024, onLine } = options;
  const kept: Buffer[] = [];
  let keptBytes = 0;
  const decoder = new StringDecoder('utf8');
  let partial = '';
  const lines = (text: string, last: boolean) => {
    if (onLine === undefined) return;
    partial += text;
    const pieces = partial.split(/\r?\n/);
    partial = pieces.pop() ?? '';
    for (const piece of pieces) onLine(piece, name);
    while (partial.length > LONGEST_LINE) {
      onLine(partial.slice(0, LONGEST_LINE), name);
      partial = partial.slice(LONGEST_LINE);
    }
    if (last && partial !== '') onLine(partial, name);
  };
  const stream = child[name];
  stream?.on('data', (data: Buffer) => {
    kept.push(data);
    keptBytes += data.length;
    while (kept.length > 1 && keptBytes - kept[0]!.length >= keepBytes) keptBytes -= kept.shift()!.length;
    lines(decoder.write(data), false);
  });
  stream?.on('end', () => lines(decoder.end(), true));
  return () => {
    const all = Buffer.concat(kept);
    return all.length > keepBytes ? all.subarray(all.length - keepBytes) : all;
  };
}

/** Ends the process group of a child that was started detached: TERM, and KILL after `killAfterMs`. */
export async function endGroup(child: ChildProcess, killAfterMs = 2000): Promise<void> {
  const { pid } = child;
  if (pid === undefined) return;
  signalGroup(pid, 'SIGTERM');
  const deadline = performance.now() + killAfterMs;
  while (groupAlive(pid) && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  signalGroup(pid, 'SIGKILL');
}

function signalGroup(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(-pid, name);
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH' && errnoOf(error) !== 'EPERM') throw error;
  }
}

function groupAlive(pid: number): boolean {
  try {
    process.kill(-pid, 0);
    return true;
  } catch {
    return false;
  }
}

function tail(result: Pick<RunResult, 'stdout' | 'stderr'>): { lastLines: string } {
  const text = (result.stderr.length > 0 ? result.stderr : result.stdout).toString('utf8').trimEnd();
  return { lastLines: text.split('\n').slice(-12).join('\n').slice(-4000) };
}

/** The full path of a program on PATH, or undefined. */
export async function findProgram(name: string): Promise<string | undefined> {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  for (const folder of folders) {
    if (folder === '') continue;
    const path = join(folder, name);
    try {
      await access(path, constants.X_OK);
      if ((await stat(path)).isFile()) return path;
    } catch {
      continue;
    }
  }
  return undefined;
}
