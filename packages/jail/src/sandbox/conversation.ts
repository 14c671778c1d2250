import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { PassThrough, type Duplex, type Readable } from 'node:stream';

import { DecantError } from '@decant/core';

/** Two files of an image of at most 1 MiB each, hexadecimal, and some words. */
const LONGEST_LINE = 5 * 1024 * 1024;
const KEPT_STDERR = 4096;

/** A program in perl that was started, and the lines exchanged with it on its descriptor 3 (see perl-conversation.ts). */
export interface Conversation {
  readonly child: ChildProcess;
  /** What it writes; kept for a reader who comes when it has ended, which Node does not do for its own streams. */
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Settles when the program and all that hold its pipes have ended. */
  readonly closed: Promise<void>;
  /** Settles when the program has ended; rejects with PROCESS_MISSING without perl. */
  readonly exited: Promise<void>;
  send(...words: readonly (string | number)[]): void;
  /** The words of the next line; undefined when there is none any more. */
  hear(): Promise<readonly string[] | undefined>;
  /** The program hears of it and ends. */
  end(): void;
  /** The last of what it wrote to standard error, where that is not the command's. */
  complaint(): string;
}

export function converse(program: string, streams: readonly ('ignore' | 'pipe' | 'inherit')[]): Conversation {
  const [stdin = 'ignore', stdout = 'ignore', stderr = 'ignore'] = streams;
  const stdio: StdioOptions = [stdin, stdout, stderr, 'pipe'];
  const child = spawn('perl', ['-e', program], {
    cwd: '/',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
    stdio,
  });
  const exited = new Promise<void>((resolve, reject) => {
    child.once('exit', () => resolve());
    child.once('error', (error) => {
      reject(new DecantError('PROCESS_MISSING', 'The program perl could not be started.', { cause: error }));
    });
  });
  exited.catch(() => undefined);
  const closed = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  const talk = child.stdio[3] as Duplex;
  const lines: string[] = [];
  let partial = '';
  let atEnd = false;
  let wake = () => {};
  talk.on('error', () => undefined);
  talk.setEncoding('latin1');
  talk.on('data', (text: string) => {
    const pieces = (partial + text).split('\n');
    partial = pieces.pop() ?? '';
    lines.push(...pieces);
    if (partial.length > LONGEST_LINE) talk.destroy();
    wake();
  });
  talk.once('close', () => {
    atEnd = true;
    wake();
  });
  let complaint = '';
  return {
    child,
    stdout: kept(child.stdout),
    stderr: kept(child.stderr),
    closed,
    exited,
    send: (...words) => void talk.write(`${words.join(' ')}\n`),
    async hear() {
      for (;;) {
        const line = lines.shift();
        if (line !== undefined || atEnd) return line?.split(' ');
        await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    end: () => void talk.destroy(),
    complaint() {
      complaint = `${complaint}${String((this.stderr.read() as Buffer | null) ?? '')}`.slice(-KEPT_STDERR);
      return complaint.trim();
    },
  };
}

function kept(from: Readable | null): Readable {
  const to = new PassThrough();
  if (from === null) return to.end();
  from.on('error', () => undefined);
  from.once('close', () => to.end());
  to.once('close', () => from.destroy());
  return from.pipe(to);
}

export function hex(text: string): string {
  return text === '' ? '-' : Buffer.from(text, 'utf8').toString('hex');
}

export function unhex(text: string | undefined): string {
  return text === undefined || text === '-' ? '' : Buffer.from(text, 'hex').toString('utf8');
}

export function setupError(step: string, reason: string): DecantError {
  return new DecantError('JAIL_FAILED', `The sandbox could not be set up (${step}): ${reason.trim().split('\n')[0]}.`, {
    hint: 'decant doctor shows what this machine can do.',
    details: { step, reason },
  });
}

export function sandboxGone(reason = 'it has ended'): DecantError {
  return new DecantError('JAIL_FAILED', `The sandbox is gone: ${reason}.`);
}
