import { connect, createServer, type Server } from 'node:net';

import { DecantError } from '@decant/core';

import { PROXY_PORT } from '../fence/ports.ts';

/** Opens a port that everything on the host reaches, with none of these numbers. @throws BOTTLE_PROBE_FAILED when there is none */
export async function openHostPort(taken: readonly number[]): Promise<AsyncDisposable & { readonly port: number }> {
  const servers: Server[] = [];
  const close = () => Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  try {
    for (let attempt = 0; attempt < 20; attempt++) {
      const server = createServer((socket) => socket.destroy());
      servers.push(server);
      const port = await listen(server);
      if (taken.includes(port) || port === PROXY_PORT) continue;
      await reach(port);
      return { port, [Symbol.asyncDispose]: async () => void (await close()) };
    }
  } catch (error) {
    await close();
    throw error;
  }
  await close();
  throw new DecantError('BOTTLE_PROBE_FAILED', 'No port of the host is free to try the fence with.');
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // Without an address: all of IPv6 and IPv4, or of IPv4 where there is no IPv6.
    server.listen(0, () => resolve((server.address() as { port: number }).port));
  });
}

/** The port answers on the host; otherwise its silence inside would prove nothing. */
function reach(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
    socket.once('error', reject);
  });
}
