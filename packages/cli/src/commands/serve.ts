import type { Command } from 'commander';

export function addServeCommand(program: Command): void {
  program
    .command('serve')
    .description('run the decant server')
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on; 0 takes a free one', '7777')
    .option('--data <dir>', 'data directory (default: DECANT_HOME)')
    .option(
      '--build-limit <name=value>',
      'limit of builds, such as memory=2G, time=3600 or running=4; may repeat',
      gather,
      [],
    )
    .option(
      '--registry-limit <name=value>',
      'limit of the registry, such as blob=10G, uploads=100, or grace=86400 for deleted bytes; may repeat',
      gather,
      [],
    )
    .option(
      '--base-registry <host>',
      'registry that builds may take base images from, instead of the well-known; may repeat',
      gather,
      [],
    )
    .option(
      '--public-url <url>',
      'where clients reach it when a proxy stands before it, such as https://decant.example; signed URLs and image names have it',
    )
    .option('--allow-origin <origin>', 'web pages of this origin may call it; may be given more than once', gather)
    .option('--json', 'print the address, and a new key if there is one, as one JSON document')
    .option('--debug', 'show stack traces of errors')
    .action(async (options) => (await import('./serve-http.ts')).serveAction(options));
}

function gather(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
