import type { Command } from 'commander';

import { withCommonOptions } from '../options.ts';

export function addKeyCommands(program: Command): void {
  const key = program.command('key').description('manage the API keys of the server');

  withCommonOptions(key.command('create'))
    .description('create a key; it is shown once')
    .option('--namespace <namespace>', 'namespace the key belongs to (default: default)')
    .action(async (options) => (await import('./key-manage.ts')).createAction(options));

  withCommonOptions(key.command('ls'))
    .description('list keys')
    .action(async (options) => (await import('./key-manage.ts')).listAction(options));

  withCommonOptions(key.command('revoke'))
    .description('revoke a key')
    .argument('<id>', 'id of the key, as decant key ls shows it')
    .action(async (id: string, options) => (await import('./key-manage.ts')).revokeAction(id, options));
}
