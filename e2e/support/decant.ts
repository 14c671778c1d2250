import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { inject } from 'vitest';

export const ROOT = join(import.meta.dirname, '../..');
const PROGRAM = join(ROOT, 'packages/cli/src/main.ts');

export interface DecantOptions {
  /** DECANT_HOME of the command. */
  readonly home: string;
  /** Added to a clean environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  readonly input?: string;
  /** Milliseconds after which the whole process group is killed; default five minutes. */
  readonly timeoutMs?: number;
  /** A program and its arguments that starts the command, such as `unshare`. */
  readonly through?: readonly string[];
}

export interface DecantResult {
  /** Exit status as a shell has it: 128 + n after signal n. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running command, in a process group of its own as a shell would have it. */
export interface RunningDecant extends AsyncDisposable {
  readonly pid: number;
  readonly ended: Promise<DecantResult>;
  stdout(): string;
  stderr(): string;
  /** Sends a signal to the command alone, or with `group` to its whole group as the terminal's Ctrl-C does. */
  signal(name: NodeJS.Signals, to?: 'group'): void;
  /** Resolves when standard output or error matches. @throws Error when the command ends first. */
  seen(pattern: RegExp): Promise<RegExpExecArray>;
}

/** Halves the time that a command from source needs to start. */
const NODE_COMPILE_CACHE = join(inject('tempRoot'), 'compile-cache');

const SIGNALS: Readonly<Record<string, number>> = { SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };

/** Starts the command line of this checkout, from source. */
export function startDecant(args: readonly string[], options: DecantOptions): RunningDecant {
  const {
    DECANT_URL: _url,
    DECANT_API_KEY: _key,
    DECANT_ROOTFS_FORMAT: _format,
    TMPDIR: _temporary,
    ...outer
  } = process.env;
  const [program, ...rest] = [...(options.through ?? []), process.execPath, '--conditions=@decant/source', PROGRAM];
  const child = spawn(program, [...rest, ...args], {
    cwd: options.cwd ?? ROOT,
    env: { ...outer, NODE_OPTIONS: '', NODE_COMPILE_CACHE, DECANT_HOME: options.home, ...options.env },
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    detached: true,
  });
  let stdout = '';
  let stderr = '';
  let over = false;
  const waiting: (() => void)[] = [];
  const changed = () => {
    for (const wake of waiting.splice(0)) wake();
  };
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    changed();
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    changed();
  });
  child.stdin?.on('error', () => undefined).end(options.input);
  const timer = setTimeout(() => signalGroup(child, 'SIGKILL'), options.timeoutMs ?? 300_000);
  const ended = new Promise<DecantResult>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, name) => {
      clearTimeout(timer);
      over = true;
      resolve({ status: code ?? 128 + (SIGNALS[name ?? ''] ?? 0), stdout, stderr });
      changed();
    });
  });
  return {
    pid: child.pid!,
    ended,
    stdout: () => stdout,
    stderr: () => stderr,
    signal: (name, to) => (to === 'group' ? signalGroup(child, name) : void child.kill(name)),
    async seen(pattern) {
      for (;;) {
        const match = pattern.exec(stdout) ?? pattern.exec(stderr);
        if (match !== null) return match;
        // Not its exit: what it said last may not have been read then.
        if (over) {
          throw new Error(`decant ${args.join(' ')} ended before it said ${String(pattern)}:\n${stdout}\n${stderr}`);
        }
        await new Promise<void>((resolve) => waiting.push(resolve));
      }
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      const gone = await Promise.race([ended.then(() => true), sleep(60_000, false, { ref: false })]);
      if (!gone) signalGroup(child, 'SIGKILL');
      await ended;
    },
  };
}

/** Runs a command to its end. */
export function decant(args: readonly string[], options: DecantOptions): Promise<DecantResult> {
  return startDecant(args, options).ended;
}

/** Runs a command that has to succeed and gives back the one document it prints. */
export async function decantJson<T>(args: readonly string[], options: DecantOptions): Promise<T> {
  const { stdout } = await succeed([...args, '--json'], options);
  const lines = stdout.split('\n');
  if (lines.length !== 2 || lines[1] !== '') throw new Error(`not one line of JSON: ${JSON.stringify(stdout)}`);
  return JSON.parse(lines[0]!) as T;
}

/** Runs a command that has to succeed; the error holds what it said when it does not. */
export async function succeed(args: readonly string[], options: DecantOptions): Promise<DecantResult> {
  const result = await decant(args, options);
  if (result.status !== 0) {
    throw new Error(`decant ${args.join(' ')} ended with status ${result.status}:\n${result.stdout}\n${result.stderr}`);
  }
  return result;
}

export interface Failure {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;
  readonly stderr: string;
}

/** Runs a command that has to fail, and reads the error it prints as the last line, as JSON. */
export async function failure(args: readonly string[], options: DecantOptions): Promise<Failure> {
  // `run` has no --json: its output is the command's. Options come before the arguments, which may belong to that command.
  const insert = args[0] === 'run' ? ([1, '--progress=json'] as const) : ([2, '--json'] as const);
  const { status, stdout, stderr } = await decant(args.toSpliced(insert[0], 0, insert[1]), options);
  if (status === 0) throw new Error(`decant ${args.join(' ')} should have failed:\n${stdout}\n${stderr}`);
  if (stdout !== '') throw new Error(`a failing command wrote to standard output: ${stdout}`);
  const last = stderr.trimEnd().split('\n').at(-1) ?? '';
  if (!last.startsWith('{"type":"error",'))
    throw new Error(`status ${status}, and no error document at the end:\n${stderr}`);
  const { error } = JSON.parse(last) as { error: Omit<Failure, 'status' | 'stderr'> };
  return { status, code: error.code, message: error.message, hint: error.hint, details: error.details, stderr };
}

/** What `create` and `import` print with `--json`. */
export interface MadeImage {
  readonly image: {
    readonly id: string;
    readonly name: string;
    readonly tag: string;
    readonly format: string;
    readonly architecture: string | null;
    readonly virtualBytes: number;
    readonly contentBytes: number;
    readonly createdAt: string;
  };
  readonly chunks: { readonly total: number; readonly new: number; readonly reused: number } | null;
  readonly bytes: { readonly new: number; readonly stored: number; readonly uploaded: number };
  readonly timingsMs: Readonly<Record<'build' | 'layout' | 'upload' | 'admit' | 'total', number>>;
}

function signalGroup(child: ChildProcess, name: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
