import { DecantError, formatBytes, quote } from '@decant/core';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { printJson, printTable } from '../render/terminal.ts';

export interface CollectOptions extends CommonOptions {
  readonly grace?: string;
}

/** @throws USAGE for what is no number of seconds */
export function graceOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const seconds = Number(text);
  if (/^\d{1,9}$/.test(text)) return seconds;
  throw new DecantError('USAGE', `Not a number of seconds: ${quote(text)}.`, {
    hint: 'Give whole seconds, such as --grace 86400 for a day, or --grace 0 when nobody is pushing.',
  });
}

export function collectAction(options: CollectOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const collected = await decant.registry.collect({ graceSeconds: graceOf(options.grace) }, { signal });
    if (options.json === true) {
      printJson(collected);
      return;
    }
    printTable(
      ['NAMESPACE', 'REMOVED', 'BYTES', 'WAITING'],
      collected.namespaces.map(({ namespace, removed, removedBytes, waiting }) => [
        namespace,
        String(removed),
        formatBytes(removedBytes),
        String(waiting),
      ]),
    );
  });
}
