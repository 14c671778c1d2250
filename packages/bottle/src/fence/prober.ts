import { spawn, type ChildProcess } from 'node:child_process';
import type { Duplex } from 'node:stream';

import { DecantError } from '@decant/core';

import { PROBE_PROGRAM } from './probe-program.ts';

export interface AttemptOptions {
  /** Path of the network namespace to try from. */
  readonly networkNamespace: string;
  /** One a line; see {@link PROBE_PROGRAM}. */
  readonly probes: readonly string[];
  /** By then all of them must have an outcome, milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** Many times what all outcomes take, and what a message needs of the last words. */
const MOST_ANSWER_BYTES = 256 * 1024;
const KEPT_COMPLAINT = 2000;

/**
 * A process that tries connections from inside a network namespace, once. It can be started ahead, because starting it takes
 * longer than all that it does then; it knows of no namespace before it is told, and ends with this process.
 */
export class Prober implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #ended: Promise<string | undefined>;
  #answers = '';
  #complaint = '';
  #isTaken = false;

  /** `passages`: how many streams it can pass on to where a probe leads. */
  constructor(passages = 0) {
    const child: ChildProcess = spawn('perl', ['-e', PROBE_PROGRAM], {
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
      stdio: Array.from({ length: 3 + passages }, () => 'pipe' as const),
      // Ctrl-C at the terminal is for whoever launches.
      detached: true,
    });
    this.#child = child;
    child.stdout?.setEncoding('latin1').on('data', (text: string) => {
      this.#answers += text;
      if (this.#answers.length > MOST_ANSWER_BYTES) child.kill('SIGKILL');
    });
    child.stderr?.setEncoding('latin1').on('data', (text: string) => {
      this.#complaint = (this.#complaint + text).slice(-KEPT_COMPLAINT);
    });
    // A process that has ended is judged by how it ended.
    child.stdin?.on('error', () => undefined);
    for (const stream of this.passages) stream.on('error', () => undefined);
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(`perl could not be started: ${error.message}`));
      child.once('close', (code, name) => {
        const how = code === null ? `perl was ended by ${name}` : `perl ended with status ${code}`;
        const why = this.#complaint.trim().split('\n').at(-1);
        resolve(code === 0 ? undefined : why === '' ? how : `${how}: ${why}`);
      });
    });
  }

  /** The streams that probes of the kind `pass` name by their descriptors, from 3 on. */
  get passages(): readonly Duplex[] {
    return this.#child.stdio.slice(3) as Duplex[];
  }

  /** Whether it can still be used: it was not, and its process lives. */
  get isReady(): boolean {
    const { pid, exitCode, signalCode } = this.#child;
    return !this.#isTaken && pid !== undefined && exitCode === null && signalCode === null;
  }

  /** What it says; see {@link PROBE_PROGRAM}. @throws BOTTLE_PROBE_FAILED when it cannot say it, or has not in time. */
  async attempt({ networkNamespace, probes, timeoutMs, signal }: AttemptOptions): Promise<string> {
    signal?.throwIfAborted();
    this.#isTaken = true;
    let isLate = false;
    const stop = () => void this.#child.kill('SIGKILL');
    signal?.addEventListener('abort', stop, { once: true });
    const timer = setTimeout(() => {
      isLate = true;
      stop();
    }, timeoutMs);
    try {
      this.#child.stdin?.end(`${[networkNamespace, ...probes].join('\n')}\n`);
      const why = await this.#ended;
      signal?.throwIfAborted();
      if (why === undefined) return this.#answers;
      const reason = isLate ? `it took more than ${timeoutMs} ms` : why;
      throw new DecantError('BOTTLE_PROBE_FAILED', `The fence could not be tried from inside: ${reason}.`);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', stop);
    }
  }

  /** Ends it, used or not. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}
