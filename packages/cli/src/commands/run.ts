import { writeFile } from 'node:fs/promises';

import { Command } from 'commander';

import { invoke, withCommonOptions, type CommonOptions } from '../command.ts';
import { say } from '../render/terminal.ts';

const MISSING = 'There is no such program in the image (or not the interpreter it names).';
const NOT_EXECUTABLE = 'The program cannot be executed by the user of the image.';

interface RunOptions extends CommonOptions {
  readonly statsFile?: string;
  readonly trustFilesystem?: boolean;
}

export function runCommand(): Command {
  return withCommonOptions(new Command('run'))
    .description('run a command in an image while it streams, without network')
    .passThroughOptions()
    .option('--stats-file <file>', 'write what was fetched to this file, as JSON')
    .option('--trust-filesystem', 'let the kernel mount a filesystem that decant did not make')
    .argument('<image>', 'name or id')
    .argument('[command...]', 'command instead of the one of the image')
    .action((ref: string, command: string[], options: RunOptions) => runAction(ref, command, options));
}

function runAction(ref: string, command: readonly string[], options: RunOptions): Promise<void> {
  return invoke(options, async ({ decant, progress, signal }) => {
    // Options may be passed through only when the parser leaves the separator in as well.
    const argv = command[0] === '--' ? command.slice(1) : command;
    const { exitCode, started, stats } = await decant.images.run(
      { ref, command: argv, trustFilesystem: options.trustFilesystem },
      { onEvent: progress.onEvent, signal },
    );
    if (options.statsFile !== undefined) await writeFile(options.statsFile, `${JSON.stringify(stats)}\n`);
    if (!started) say(exitCode === 127 ? MISSING : NOT_EXECUTABLE);
    return exitCode;
  });
}
