// Before everything else.
import './collector.ts';

import { CommanderError } from 'commander';

import { createProgram } from './program.ts';
import { reportFailure } from './render/failure.ts';
import { readerHasGone } from './render/reader-gone.ts';

const USAGE_STATUS = 2;

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A reader that goes away (`decant image ls | head`) is not an error; a result that is lost is.
  if (error.code === 'EPIPE') readerHasGone();
  else process.exit(reportFailure(error, { json: false, debug: false }));
});
// There is nobody to tell.
process.stderr.on('error', () => {});

try {
  await createProgram().parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? 0 : USAGE_STATUS;
}
