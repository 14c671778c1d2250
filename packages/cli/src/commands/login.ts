import type { Command } from 'commander';

import { withCommonOptions } from '../options.ts';

export function addLoginCommands(program: Command): void {
  withCommonOptions(program.command('login'))
    .description('work with a server from now on; asks for the key, or reads it from standard input')
    .argument('<url>', 'address of the server')
    .action(async (url: string, options) => (await import('./login-store.ts')).loginAction(url, options));

  withCommonOptions(program.command('logout'))
    .description('forget the server and the key')
    .action(async (options) => (await import('./login-store.ts')).logoutAction(options));
}
