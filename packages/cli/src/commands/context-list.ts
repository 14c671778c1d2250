import { formatBytes } from '@decant/core';
import { listContext } from '@decant/sdk';

import { invoke } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { printJson, printTable, say, stderr } from '../render/terminal.ts';

export interface ListOptions extends CommonOptions {
  readonly file?: string;
}

export function listAction(directory: string, options: ListOptions): Promise<void> {
  return invoke(options, async ({ signal }) => {
    const listing = await listContext({ context: directory, dockerfile: options.file, signal });
    const { ignoreFile, digest } = listing;
    if (options.json === true) {
      printJson({ files: listing.files, ignoreFile, digest });
      return;
    }
    // On a terminal a person looks for what makes the context large; a pipe gets the order of the archive.
    const files = process.stdout.isTTY ? listing.files.toSorted((a, b) => b.sizeBytes - a.sizeBytes) : listing.files;
    printTable(
      ['SIZE', 'TYPE', 'PATH'],
      files.map((file) => [formatBytes(file.sizeBytes), file.type, file.path]),
    );
    const bytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    const entries = `${files.length} ${files.length === 1 ? 'entry' : 'entries'}`;
    say(stderr.style.dim(`${entries}, ${formatBytes(bytes)}; ignore file: ${ignoreFile ?? 'none'}; ${digest}`));
  });
}
