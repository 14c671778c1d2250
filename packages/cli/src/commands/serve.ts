import type { Command } from 'commander';

export function addServeCommand(program: Command): void {
  program
    .command('serve')
    .description('run the decant server')
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on; 0 takes a free one', '7777')
    .option('--data <dir>', 'data directory (default: DECANT_HOME)')
    .option('--allow-origin <origin>', 'web pages of this origin may call it; may be given more than once', collect)
    .option('--json', 'print the address, and a new key if there is one, as one JSON document')
    .option('--debug', 'show stack traces of errors')
    .action(async (options) => (await import('./serve-http.ts')).serveAction(options));
}

function collect(value: string, previous: readonly string[] = []): string[] {
  return [...previous, value];
}
