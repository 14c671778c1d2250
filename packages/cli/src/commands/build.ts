import type { Command } from 'commander';

import { withCommonOptions } from '../options.ts';

export function addBuildCommands(program: Command): void {
  const build = program.command('build').description('see and end builds; image create and snapshot create start them');

  withCommonOptions(build.command('ls'))
    .description('list builds of the image-builder, newest first')
    .option('--limit <n>', 'most builds to list, 1 to 100', '20')
    .option('--cursor <cursor>', 'go on where a page ended')
    .action(async (options) => (await import('./build-manage.ts')).listAction(options));

  withCommonOptions(build.command('get'))
    .description('show one build')
    .argument('<id>', 'id of the build')
    .action(async (id: string, options) => (await import('./build-manage.ts')).getAction(id, options));

  withCommonOptions(build.command('logs'))
    .description('print the log of a build, and follow it to its end')
    .argument('<id>', 'id of the build')
    .action(async (id: string, options) => (await import('./build-manage.ts')).logsAction(id, options));

  withCommonOptions(build.command('cancel'))
    .description('end a build')
    .argument('<id>', 'id of the build')
    .action(async (id: string, options) => (await import('./build-manage.ts')).cancelAction(id, options));
}
