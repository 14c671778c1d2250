import type { Command } from 'commander';

import { withCommonOptions } from '../options.ts';

export function addRegistryCommands(program: Command): void {
  const registry = program.command('registry').description('look after the registry of the server');

  withCommonOptions(registry.command('gc'))
    .description('remove the bytes that no image of the registry needs any more; this also happens once an hour')
    .option('--grace <seconds>', 'how long nothing must have needed them (default: a day, or what serve was told)')
    .action(async (options) => (await import('./registry-collect.ts')).collectAction(options));
}
