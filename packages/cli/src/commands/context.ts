import type { Command } from 'commander';

import { withCommonOptions } from '../options.ts';

export function addContextCommands(program: Command): void {
  const context = program.command('context').description('look at build contexts');
  withCommonOptions(context.command('ls'))
    .description('list what would be sent to a builder')
    .argument('<context>', 'directory')
    .option('-f, --file <file>', 'the Dockerfile, whose own ignore file comes first')
    .action(async (directory: string, options) => (await import('./context-list.ts')).listAction(directory, options));
}
