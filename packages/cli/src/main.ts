// Before everything else.
import './collector.ts';

import { CommanderError } from 'commander';

import { createProgram } from './program.ts';
import { readerHasGone } from './render/reader-gone.ts';

const USAGE_STATUS = 2;

for (const stream of [process.stdout, process.stderr]) {
  // A reader that goes away (`decant image ls | head`) is not an error.
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    if (stream === process.stdout) readerHasGone();
  });
}

try {
  await createProgram().parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? 0 : USAGE_STATUS;
}
