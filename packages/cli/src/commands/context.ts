import { formatBytes } from '@decant/core';
import { Command } from 'commander';

import { invoke, withCommonOptions, type CommonOptions } from '../command.ts';
import { dim, printJson, printTable, say } from '../render/terminal.ts';

interface ListOptions extends CommonOptions {
  readonly file?: string;
}

export function contextCommands(): Command {
  const context = new Command('context').description('look at build contexts');
  withCommonOptions(context.command('ls'))
    .description('list what would be sent to a builder')
    .argument('<context>', 'directory')
    .option('-f, --file <file>', 'the Dockerfile, whose own ignore file comes first')
    .action((directory: string, options: ListOptions) => listAction(directory, options));
  return context;
}

function listAction(directory: string, options: ListOptions): Promise<void> {
  return invoke(options, async ({ signal }) => {
    const { listContext } = await import('@decant/sdk');
    const listing = await listContext({ context: directory, dockerfile: options.file, signal });
    if (options.json === true) {
      const { files, ignoreFile, digest } = listing;
      printJson({ files, ignoreFile, digest });
      return;
    }
    // On a terminal a person looks for what makes the context large; a pipe gets the order of the archive.
    const files = process.stdout.isTTY ? listing.files.toSorted((a, b) => b.sizeBytes - a.sizeBytes) : listing.files;
    printTable(
      ['SIZE', 'TYPE', 'PATH'],
      files.map((file) => [formatBytes(file.sizeBytes), file.type, file.path]),
    );
    const bytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    say(
      dim(
        `${files.length} entries, ${formatBytes(bytes)}; ignore file: ${listing.ignoreFile ?? 'none'}; ${listing.digest}`,
      ),
    );
  });
}
