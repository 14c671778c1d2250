import { once } from 'node:events';
import type { Server } from 'node:http';

import { DecantError, errnoOf, Scope } from '@decant/core';
import { createAdaptorServer } from '@hono/node-server';

import { createApiKey, DEFAULT_NAMESPACE } from './auth.ts';
import { openServer, type OpenOptions } from './open.ts';

export interface ListenOptions extends OpenOptions {
  readonly host: string;
  /** 0 takes a free port. */
  readonly port: number;
}

export interface ListeningServer extends AsyncDisposable {
  /** Where it listens. */
  readonly url: string;
  /** The API key that was made because the data directory had none; shown here and nowhere else. */
  readonly firstKey: string | undefined;
}

/** How long connections may take to finish when the server stops, in milliseconds. */
const DRAIN_MS = 5000;

/** How long a request may take to arrive, in milliseconds: a layer of 10 GiB at 12 megabits per second. */
const REQUEST_MS = 2 * 60 * 60 * 1000;

/** Serves a data directory over HTTP until it is disposed of. @throws CONFIG_INVALID when the address cannot be had. */
export async function listen(options: ListenOptions): Promise<ListeningServer> {
  await using scope = new Scope();
  const server = scope.use(await openServer({ ...options, builder: { builds: 'tenant', ...options.builder } }));
  const http = createAdaptorServer({
    fetch: (request) => server.handle(request),
    serverOptions: { requestTimeout: REQUEST_MS },
  }) as Server;
  http.listen(options.port, options.host);
  try {
    await once(http, 'listening');
  } catch (error) {
    throw new DecantError(
      'CONFIG_INVALID',
      `Cannot listen on ${options.host} port ${options.port}: ${errnoOf(error) ?? 'unknown'}.`,
      {
        hint: 'Choose another address with --host and --port; port 0 takes a free one.',
        cause: error,
      },
    );
  }
  scope.defer(() => close(http));
  const keys = await server.metadata.keys.list();
  const firstKey = keys.length > 0 ? undefined : (await createApiKey(server.metadata, DEFAULT_NAMESPACE)).key;
  const resources = scope.move();
  return {
    url: urlOf(http),
    firstKey,
    [Symbol.asyncDispose]: () => resources[Symbol.asyncDispose](),
  };
}

function urlOf(http: Server): string {
  const address = http.address();
  if (address === null || typeof address === 'string') throw new TypeError('the server has no address');
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return `http://${host}:${address.port}`;
}

async function close(http: Server): Promise<void> {
  const closed = once(http, 'close');
  http.close();
  http.closeIdleConnections();
  const timer = setTimeout(() => http.closeAllConnections(), DRAIN_MS);
  await closed;
  clearTimeout(timer);
}
