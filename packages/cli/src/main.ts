import { Command, CommanderError } from 'commander';

import { contextCommands } from './commands/context.ts';
import { doctorCommand } from './commands/doctor.ts';
import { imageCommands } from './commands/image.ts';
import { keyCommands } from './commands/key.ts';
import { runCommand } from './commands/run.ts';
import { serveCommand } from './commands/serve.ts';
import { version } from './version.ts';

const USAGE_STATUS = 2;

// A reader that goes away (`decant image ls | head`) is not an error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const program = new Command('decant')
  .description('From a Dockerfile to a sandbox that runs before its disk has arrived.')
  .version(version, '-V, --version')
  .showHelpAfterError('Run the command with --help to see how it is used.')
  .enablePositionalOptions()
  .addCommand(imageCommands())
  .addCommand(runCommand())
  .addCommand(contextCommands())
  .addCommand(serveCommand())
  .addCommand(keyCommands())
  .addCommand(doctorCommand());

exitInsteadOfThrow(program);

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? 0 : USAGE_STATUS;
}

/** Makes commander report wrong usage as an error, so that it ends with the same status as every usage error. */
function exitInsteadOfThrow(command: Command): void {
  command.exitOverride();
  for (const child of command.commands) exitInsteadOfThrow(child);
}
