import { Command } from 'commander';

import { addContextCommands } from './commands/context.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addImageCommands } from './commands/image.ts';
import { addKeyCommands } from './commands/key.ts';
import { addRunCommand } from './commands/run.ts';
import { addServeCommand } from './commands/serve.ts';
import { version } from './version.ts';

/** The whole command line. Only what parses is loaded here; what a command does is loaded when it runs. */
export function createProgram(): Command {
  const program = new Command('decant')
    .description('From a Dockerfile to a sandbox that runs before its disk has arrived.')
    .version(version, '-V, --version')
    .showHelpAfterError('Run the command with --help to see how it is used.')
    .enablePositionalOptions()
    .exitOverride()
    .addHelpText(
      'after',
      `
Environment:
  DECANT_HOME            where images and keys are kept (default: $XDG_DATA_HOME/decant)
  DECANT_ROOTFS_FORMAT   what create and import make without --streaming: ext4 or cas-streaming
  DECANT_URL             address of a decant server to work with instead of this machine
  DECANT_API_KEY         key for that server
  NO_COLOR               no colours when it is set

Exit status: 0 done, 1 failed, 2 wrong usage or input, 3 not allowed, 4 not found, 5 build failed,
6 damaged or refused content, 7 something needed is not available, 130 interrupted.`,
    );
  addImageCommands(program);
  addRunCommand(program);
  addContextCommands(program);
  addServeCommand(program);
  addKeyCommands(program);
  addDoctorCommand(program);
  return program;
}
