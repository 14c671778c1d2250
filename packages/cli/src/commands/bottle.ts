import { Option, type Command } from 'commander';

import type { CommandWords } from './bottle-request.ts';
import { withCommonOptions, withProgressOptions } from '../options.ts';
import { collect, withSandboxOptions } from './sandbox-options.ts';

const USAGE =
  '[options] <manifest> [-- command...]\n       decant bottle run [options] --image <ref> [name] [-- command...]';
const MANIFEST = 'a manifest by its name or file, or what the bottle is called when there is --image';
const COMMAND = "command instead of the manifest's or the image's";

export function addBottleCommands(program: Command): void {
  const bottle = program
    .command('bottle')
    .description('agents in bottles: no network card, every connection judged, nothing left behind');

  withCommonOptions(withPlanOptions(bottle.command('plan')))
    .description('print what a bottle would be allowed, before anything runs')
    .usage(USAGE)
    .argument('[manifest]', MANIFEST)
    .argument('[command...]', COMMAND)
    .action(async (_first, _rest, options, command: Command) =>
      (await import('./bottle-run.ts')).planAction(wordsOf(command), options),
    );

  withCommonOptions(withPlanOptions(bottle.command('run')))
    .description('run an agent in a bottle, until it ends')
    .usage(USAGE)
    .option('-d, --detach', 'let it run on its own; print its name')
    .option('-t, --tty', 'give the agent a terminal, to attach to it later')
    .addOption(new Option('--supervise').hideHelp())
    .argument('[manifest]', MANIFEST)
    .argument('[command...]', COMMAND)
    .action(async (_first, _rest, options, command: Command) =>
      (await import('./bottle-run.ts')).runAction(wordsOf(command), options),
    );

  withCommonOptions(bottle.command('ls'))
    .description('list bottles')
    .option('-a, --all', 'also those that have ended and whose record is kept')
    .action(async (options) => (await import('./bottle-manage.ts')).listAction(options));

  withProgressOptions(bottle.command('exec'))
    .description('run a command in a running bottle')
    .usage('[options] <bottle> -- command...')
    .passThroughOptions()
    .option('-i, --interactive', 'pass on standard input')
    .option('-t, --tty', 'give the command a terminal')
    .option('-u, --user <user>', "name or number, with an optional :group (default: the image's)")
    .option('-w, --workdir <path>', "working directory (default: the image's)")
    .option(
      '-e, --env <name=value>',
      'set a variable, or with NAME alone pass it on; may be given more than once',
      collect,
    )
    .option('--timeout <time>', 'end it after so many seconds, or 90m, 12h')
    .argument('<bottle>', 'name of the bottle')
    .argument('<command...>', 'program and arguments')
    .action(async (name: string, command: string[], options) =>
      (await import('./bottle-exec.ts')).execAction(name, command, options),
    );

  withProgressOptions(bottle.command('attach'))
    .description("see and type on the agent's terminal; ctrl-p ctrl-q leaves it running")
    .option('--no-stdin', 'only look on')
    .argument('<bottle>', 'name of the bottle')
    .action(async (name: string, options) => (await import('./bottle-exec.ts')).attachAction(name, options));

  withCommonOptions(bottle.command('cp'))
    .description('copy a file or directory into a bottle (HERE BOTTLE:PATH) or out of it (BOTTLE:PATH HERE)')
    .argument('<source>', 'a path here, or BOTTLE:PATH')
    .argument('<destination>', 'a path here, or BOTTLE:PATH; below a directory that exists it keeps its name')
    .action(async (source: string, destination: string, options) =>
      (await import('./bottle-copy.ts')).copyAction(source, destination, options),
    );

  withProgressOptions(bottle.command('logs'))
    .description('show what the agent wrote, also after its end')
    .option('-f, --follow', 'wait for more until it ends')
    .option('--tail <lines>', 'only so many lines before the end')
    .option('--audit', 'show the audit instead: what was allowed and denied, as JSON lines')
    .argument('<bottle>', 'name of the bottle')
    .action(async (name: string, options) => (await import('./bottle-exec.ts')).logsAction(name, options));

  withCommonOptions(bottle.command('stop'))
    .description('end bottles: TERM for the agent, KILL after a while, then everything else')
    .option('--grace <time>', 'time between TERM and KILL', '10')
    .argument('<bottles...>', 'their names')
    .action(async (names: string[], options) => (await import('./bottle-manage.ts')).stopAction(names, options));

  withCommonOptions(bottle.command('snapshot'))
    .description('make an image of a running bottle; it shares the chunks of what did not change')
    .argument('<bottle>', 'name of the bottle')
    .argument('<image>', 'NAME[:TAG] of the new image')
    .action(async (name: string, image: string, options) =>
      (await import('./bottle-manage.ts')).snapshotAction(name, image, options),
    );

  withCommonOptions(bottle.command('gc'))
    .description('remove what killed bottles left behind; running ones are not touched')
    .action(async (options) => (await import('./bottle-manage.ts')).collectAction(options));
}

function withPlanOptions(command: Command): Command {
  return withSandboxOptions(
    command.option(
      '--image <ref>',
      "image to run (default: the manifest's); without a manifest, all comes from these options",
    ),
  );
}

/** What stands before and after the separator, which tells a command from a name. */
function wordsOf(command: Command): CommandWords {
  let root = command;
  while (root.parent !== null) root = root.parent;
  // What was typed, which the parsed arguments no longer tell; part of commander without being in its types.
  const { rawArgs } = root as Command & { readonly rawArgs: readonly string[] };
  const separator = rawArgs.indexOf('--');
  const after = separator < 0 ? 0 : rawArgs.length - separator - 1;
  const split = command.args.length - after;
  return { names: command.args.slice(0, split), command: separator < 0 ? undefined : command.args.slice(split) };
}
