import type { Command } from 'commander';

import { withProgressOptions } from '../options.ts';
import { withSandboxOptions } from './sandbox-options.ts';

export function addRunCommand(program: Command): void {
  withSandboxOptions(withProgressOptions(program.command('run')))
    .description(
      "run an image's command, or another one, in a bottle of its own while the image streams; without network unless allowed",
    )
    .usage('[options] <image> [-- command...]')
    .passThroughOptions()
    .option('--stats-file <file>', 'write what was fetched to this file, as JSON')
    .argument('<image>', 'name or id')
    .argument('[command...]', 'command instead of the one of the image; its entrypoint stays')
    .action(async (ref: string, command: string[], options) =>
      (await import('./run-image.ts')).runAction(ref, command, options),
    );
}
