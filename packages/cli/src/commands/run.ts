import type { Command } from 'commander';

import { withProgressOptions } from '../options.ts';

export function addRunCommand(program: Command): void {
  withProgressOptions(program.command('run'))
    .description("run an image's command, or another one, while the image streams; without network unless allowed")
    .usage('[options] <image> [-- command...]')
    .passThroughOptions()
    .option('--stats-file <file>', 'write what was fetched to this file, as JSON')
    .option('--allow <host[:port]>', 'let it reach a host by HTTP; may be given more than once', collect)
    .option('--trust-filesystem', 'let the kernel mount a filesystem that decant did not make')
    .argument('<image>', 'name or id')
    .argument('[command...]', 'command instead of the one of the image; its entrypoint stays')
    .action(async (ref: string, command: string[], options) =>
      (await import('./run-image.ts')).runAction(ref, command, options),
    );
}

function collect(value: string, previous: readonly string[] = []): string[] {
  return [...previous, value];
}
