import { Option, type Command } from 'commander';

import { PROGRESS_MODES, type ProgressMode } from './progress-mode.ts';

/** Options of every command that does something. */
export interface CommonOptions {
  readonly json?: boolean;
  readonly progress?: ProgressMode;
  readonly debug?: boolean;
}

/** Adds the options that every command has. */
export function withCommonOptions(command: Command): Command {
  return withProgressOptions(command.option('--json', 'print one JSON document on standard output'));
}

/** The common options without `--json`, for a command whose standard output belongs to another program. */
export function withProgressOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--progress <mode>', 'how to show progress on standard error').choices(PROGRESS_MODES).default('auto'),
    )
    .option('--debug', 'show stack traces of errors');
}
