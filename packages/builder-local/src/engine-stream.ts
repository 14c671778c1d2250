import { spawn } from 'node:child_process';

import { DecantError, errnoOf } from '@decant/core';
import { endGroup } from '@decant/core/node';

import type { CommandLine } from './confine.ts';

const KEPT_BYTES = 4096;
const KILL_AFTER_MS = 1000;

/**
 * What a program writes to its standard output, as it comes; it is read no faster than the consumer reads. The
 * iteration ends only when the program ended well. Leaving it early, or aborting, ends the program.
 * @throws PROCESS_MISSING, PROCESS_FAILED with the last lines of its standard error.
 */
export async function* engineStream(
  [program, ...args]: CommandLine,
  { env, signal }: { readonly env: NodeJS.ProcessEnv; readonly signal?: AbortSignal | undefined },
): AsyncGenerator<Buffer, void> {
  signal?.throwIfAborted();
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-KEPT_BYTES);
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', (error) =>
      reject(
        errnoOf(error) === 'ENOENT'
          ? new DecantError('PROCESS_MISSING', `The program ${program} is not installed.`, { cause: error })
          : error,
      ),
    );
    child.once('close', resolve);
  });
  ended.catch(() => undefined);
  const stop = () => {
    void endGroup(child, KILL_AFTER_MS);
    child.stdout.destroy();
  };
  signal?.addEventListener('abort', stop, { once: true });
  let done = false;
  try {
    try {
      for await (const piece of child.stdout) yield piece as Buffer;
    } catch (error) {
      // The stream was destroyed: the reason of the abort says more.
      signal?.throwIfAborted();
      throw error;
    }
    const exitCode = await ended;
    signal?.throwIfAborted();
    done = true;
    if (exitCode === 0) return;
    const lastLines = said.trimEnd();
    throw new DecantError('PROCESS_FAILED', `${program} ended with status ${exitCode}: ${lastLines}`, {
      details: { command: program, args, exitCode, lastLines },
    });
  } finally {
    signal?.removeEventListener('abort', stop);
    if (!done) {
      stop();
      await ended.catch(() => undefined);
    }
  }
}
