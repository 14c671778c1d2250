import type { Command } from 'commander';

import { withCommonOptions } from '../options.ts';

export function addSnapshotCommands(program: Command): void {
  const snapshot = program.command('snapshot').description('register built images, and find them again');

  withCommonOptions(snapshot.command('create'))
    .description('build a context, or take an image, and register it')
    .argument('[context]', 'directory that holds what the Dockerfile copies')
    .option('--image <reference>', 'an image that exists, instead of a context')
    .option('-f, --file <file>', 'the Dockerfile (default: Dockerfile in the context)')
    .option('-n, --name <name>', 'name of the image in the registry (default: the name of the directory)')
    .option('-a, --alias <alias>', 'point this alias at it; may be given more than once', collect)
    .option('-t, --tag <key=value>', 'a tag; may be given more than once', collect)
    .option('--ttl <time>', 'retire it after so many seconds, or 90m, 12h, 7d')
    .option('--streaming', 'make a cas-streaming image, which runs while it arrives')
    .option('--build-arg <key=value>', 'set a build argument; may be given more than once', collect)
    .option('--target <stage>', 'stop at this stage')
    .option('--platform <platform>', 'linux/amd64 or linux/arm64')
    .option('--cache-key <key>', 'share the layer cache of builds with this key')
    .option('--local', 'build straight with an engine of this machine')
    .option('--ci', 'no redrawing; the last line on standard output is the id')
    .action(async (context: string | undefined, options) =>
      (await import('./snapshot-manage.ts')).createAction(context, options),
    );

  withCommonOptions(snapshot.command('ls'))
    .description('list snapshots, newest first')
    .option('--limit <n>', 'most snapshots to list, 1 to 100', '20')
    .option('--cursor <cursor>', 'go on where a page ended')
    .option('--all', 'follow the pages to their end')
    .option('-t, --tag <key=value>', 'only those with this tag; may be given more than once', collect)
    .option('--exclude-retired', 'leave out retired ones')
    .option('--ci', 'ids only, one a line')
    .action(async (options) => (await import('./snapshot-manage.ts')).listAction(options));

  withCommonOptions(snapshot.command('get'))
    .description('show one snapshot')
    .argument('<snapshot>', 'id or @ALIAS')
    .action(async (ref: string, options) => (await import('./snapshot-manage.ts')).getAction(ref, options));

  withCommonOptions(snapshot.command('retire'))
    .description('allow no new sandboxes of a snapshot')
    .argument('<snapshot>', 'id or @ALIAS')
    .action(async (ref: string, options) => (await import('./snapshot-manage.ts')).retireAction(ref, options));

  withCommonOptions(snapshot.command('alias'))
    .description('list the aliases of a snapshot, or point one at it')
    .argument('<snapshot>', 'id or @ALIAS')
    .argument('[alias]', 'alias to point at it; one that exists moves')
    .action(async (ref: string, alias: string | undefined, options) =>
      (await import('./snapshot-manage.ts')).aliasAction(ref, alias, options),
    );

  withCommonOptions(snapshot.command('unalias'))
    .description('remove an alias; the snapshot stays')
    .argument('<alias>', 'the alias')
    .action(async (alias: string, options) => (await import('./snapshot-manage.ts')).unaliasAction(alias, options));
}

function collect(value: string, previous: readonly string[] = []): string[] {
  return [...previous, value];
}
