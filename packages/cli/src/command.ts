import { DecantError } from '@decant/core';
import type { Command } from 'commander';

import { createProgress, PROGRESS_MODES, type ProgressMode, type ProgressRenderer } from './render/progress.ts';
import { Interrupted, INTERRUPTED_STATUS, reportFailure } from './render/failure.ts';
import { wire, type Wired } from './wiring.ts';

/** Options that every command has. */
export interface CommonOptions {
  readonly json?: boolean;
  readonly progress?: string;
  readonly debug?: boolean;
}

/** What a command runs with. */
export interface Invocation extends Wired {
  readonly progress: ProgressRenderer;
  readonly signal: AbortSignal;
}

/** Adds the options that every command has. */
export function withCommonOptions(command: Command): Command {
  return command
    .option('--json', 'print one JSON document on standard output')
    .option('--progress <mode>', `how to show progress: ${PROGRESS_MODES.join(', ')}`, 'auto')
    .option('--debug', 'show stack traces of errors');
}

/**
 * Runs a command's body with everything it needs, reports its failure and sets the exit status. The first
 * interrupt aborts the body and lets it clean up; the second ends the process.
 */
export async function invoke(
  options: CommonOptions,
  body: (invocation: Invocation) => Promise<number | void>,
): Promise<void> {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(INTERRUPTED_STATUS);
    controller.abort(new Interrupted('interrupted'));
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  let progress: ProgressRenderer | undefined;
  try {
    progress = createProgress(progressMode(options.progress));
    await using wired = await wire();
    process.exitCode =
      (await body({ ...wired, [Symbol.asyncDispose]: () => Promise.resolve(), progress, signal: controller.signal })) ??
      0;
  } catch (error) {
    progress?.end();
    process.exitCode = reportFailure(error, { json: options.json === true, debug: options.debug === true });
  } finally {
    progress?.end();
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

function progressMode(text = 'auto'): ProgressMode {
  const mode = PROGRESS_MODES.find((known) => known === text);
  if (mode === undefined) {
    throw new DecantError('USAGE', `There is no progress mode ${text}.`, {
      hint: `Use one of ${PROGRESS_MODES.join(', ')}.`,
    });
  }
  return mode;
}
