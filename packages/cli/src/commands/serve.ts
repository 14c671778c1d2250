import { once } from 'node:events';
import { resolve } from 'node:path';

import { DecantError, quote } from '@decant/core';
import { decantPaths } from '@decant/sdk';
import { Command } from 'commander';

import { Interrupted, reportFailure } from '../render/failure.ts';
import { printJson, say } from '../render/terminal.ts';

interface ServeOptions {
  readonly host: string;
  readonly port: string;
  readonly data?: string;
  readonly json?: boolean;
  readonly debug?: boolean;
}

export function serveCommand(): Command {
  return new Command('serve')
    .description('run the decant server')
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on; 0 takes a free one', '7777')
    .option('--data <dir>', 'data directory (default: DECANT_HOME)')
    .option('--json', 'print the address, and a new key if there is one, as one JSON document')
    .option('--debug', 'show stack traces of errors')
    .action((options: ServeOptions) => serveAction(options));
}

async function serveAction(options: ServeOptions): Promise<void> {
  const controller = new AbortController();
  const stop = () => controller.abort(new Interrupted('interrupted'));
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    const port = Number(options.port);
    if (!Number.isInteger(port) || port < 0 || port > 65_535) {
      throw new DecantError('USAGE', `Not a port: ${quote(options.port)}.`);
    }
    const { listen } = await import('@decant/server');
    await using server = await listen({
      dataDirectory: options.data === undefined ? decantPaths().home : resolve(options.data),
      host: options.host,
      port,
      onError: (error) => say(`${error.code}: ${error.message}`),
    });
    if (options.json === true) {
      printJson({ url: server.url, ...(server.firstKey === undefined ? {} : { key: server.firstKey }) });
    } else {
      process.stdout.write(`${server.url}\n`);
      if (server.firstKey !== undefined) {
        process.stdout.write(`${server.firstKey}\n`);
        say('The second line is the API key of the namespace "default". It is not shown again: keep it.');
      }
      say(`Use it with: DECANT_URL=${server.url} DECANT_API_KEY=… decant image ls`);
    }
    // Being told to stop is how this command ends.
    if (!controller.signal.aborted) await once(controller.signal, 'abort');
    process.exitCode = 0;
  } catch (error) {
    process.exitCode = reportFailure(error, { json: options.json === true, debug: options.debug === true });
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}
