import { Command } from 'commander';

import { invoke, withCommonOptions, type CommonOptions } from '../command.ts';
import { printJson, printTable, say } from '../render/terminal.ts';

export function keyCommands(): Command {
  const key = new Command('key').description('manage API keys of this machine’s server');

  withCommonOptions(key.command('create'))
    .description('create a key; it is shown once')
    .option('--namespace <namespace>', 'namespace the key belongs to (default: default)')
    .action((options: CommonOptions & { readonly namespace?: string }) =>
      invoke(options, async ({ decant }) => {
        const created = await decant.keys.create(options.namespace);
        if (options.json === true) {
          printJson(created);
          return;
        }
        process.stdout.write(`${created.key}\n`);
        say(`key ${created.id} of namespace ${created.namespace}; it is not shown again`);
      }),
    );

  withCommonOptions(key.command('ls'))
    .description('list keys')
    .action((options: CommonOptions) =>
      invoke(options, async ({ decant }) => {
        const keys = await decant.keys.list();
        if (options.json === true) {
          printJson({ keys });
          return;
        }
        printTable(
          ['ID', 'NAMESPACE', 'CREATED', 'REVOKED'],
          keys.map(({ id, namespace, createdAt, revokedAt }) => [id, namespace, createdAt, revokedAt ?? '-']),
        );
      }),
    );

  withCommonOptions(key.command('revoke'))
    .description('revoke a key')
    .argument('<id>', 'id of the key, as decant key ls shows it')
    .action((id: string, options: CommonOptions) =>
      invoke(options, async ({ decant }) => {
        const revoked = await decant.keys.revoke(id);
        if (options.json === true) printJson(revoked);
        else say(`revoked key ${revoked.id} of namespace ${revoked.namespace}`);
      }),
    );

  return key;
}
