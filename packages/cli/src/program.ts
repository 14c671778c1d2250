import { Command } from 'commander';

import { addBottleCommands } from './commands/bottle.ts';
import { addBuildCommands } from './commands/build.ts';
import { addContextCommands } from './commands/context.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addImageCommands } from './commands/image.ts';
import { addKeyCommands } from './commands/key.ts';
import { addLoginCommands } from './commands/login.ts';
import { addRegistryCommands } from './commands/registry.ts';
import { addRunCommand } from './commands/run.ts';
import { addServeCommand } from './commands/serve.ts';
import { addSnapshotCommands } from './commands/snapshot.ts';
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
  DECANT_BUILDER_URL     address of its image-builder, when that is another one
  DECANT_LOCAL_BUILD     1: build straight with an engine of this machine
  DECANT_REMOTE_ARCHITECTURE
                         amd64 or arm64: what images of an image-builder must be
  NO_COLOR               no colours when it is set

Exit status: 0 done, 1 failed, 2 wrong usage or input, 3 not allowed, 4 not found, 5 build failed,
6 damaged or refused content, 7 something needed is not available, 130 interrupted.`,
    );
  addImageCommands(program);
  addRunCommand(program);
  addBottleCommands(program);
  addBuildCommands(program);
  addSnapshotCommands(program);
  addContextCommands(program);
  addServeCommand(program);
  addKeyCommands(program);
  addRegistryCommands(program);
  addLoginCommands(program);
  addDoctorCommand(program);
  return program;
}
