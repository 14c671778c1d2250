import type { Decant } from '@decant/sdk';

import type { CommonOptions } from './options.ts';
import { Interrupted, INTERRUPTED_STATUS, reportFailure } from './render/failure.ts';
import { createProgress, type ProgressRenderer } from './render/progress.ts';
import { stderr } from './render/terminal.ts';

/** What the body of a command works with. */
export interface Invocation {
  readonly progress: ProgressRenderer;
  readonly signal: AbortSignal;
}

export interface InvokeOptions extends CommonOptions {
  /** Progress vanishes when it is over and is shown on a terminal only: standard error is another program's. */
  readonly transient?: boolean;
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs the body of a command, reports its failure and sets the exit status: what the body returns, by default
 * 0. The first signal aborts the body and lets it clean up; the second ends the process.
 */
export async function invoke(
  options: InvokeOptions,
  body: (invocation: Invocation) => Promise<number | void>,
): Promise<void> {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(INTERRUPTED_STATUS);
    controller.abort(new Interrupted('interrupted'));
  };
  for (const name of SIGNALS) process.on(name, interrupt);
  const progress = createProgress(options.progress ?? 'auto', { transient: options.transient === true });
  try {
    process.exitCode = (await body({ progress, signal: controller.signal })) ?? 0;
  } catch (error) {
    progress.end();
    process.exitCode = reportFailure(error, {
      // A person at a terminal who asked for JSON is still told in words what went wrong.
      json: options.progress === 'json' || (options.json === true && !stderr.redraws),
      debug: options.debug === true,
    });
  } finally {
    progress.end();
    for (const name of SIGNALS) process.off(name, interrupt);
  }
}

/** Like `invoke`, with the SDK on the server that the environment names. */
export function invokeWired(
  options: InvokeOptions,
  body: (invocation: Invocation & { readonly decant: Decant }) => Promise<number | void>,
): Promise<void> {
  return invoke(options, async (invocation) => {
    const { wire } = await import('./wiring.ts');
    await using wired = await wire();
    return await body({ ...invocation, decant: wired.decant });
  });
}
