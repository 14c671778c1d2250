import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printJson, printTable, say } from '../render/terminal.ts';

export function createAction(options: CommonOptions & { readonly namespace?: string }): Promise<void> {
  return invokeWired(options, async ({ decant }) => {
    const created = await decant.keys.create(options.namespace);
    if (options.json === true) {
      printJson(created);
      return;
    }
    print(created.key);
    say(`key ${created.id} of namespace ${created.namespace}; it is not shown again`);
  });
}

export function listAction(options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant }) => {
    const keys = await decant.keys.list();
    if (options.json === true) {
      printJson({ keys });
      return;
    }
    printTable(
      ['ID', 'NAMESPACE', 'CREATED', 'REVOKED'],
      keys.map(({ id, namespace, createdAt, revokedAt }) => [id, namespace, createdAt, revokedAt ?? '-']),
    );
  });
}

export function revokeAction(id: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant }) => {
    const revoked = await decant.keys.revoke(id);
    if (options.json === true) printJson(revoked);
    else say(`revoked key ${revoked.id} of namespace ${revoked.namespace}`);
  });
}
