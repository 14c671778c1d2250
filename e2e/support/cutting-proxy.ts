import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/** A TCP proxy before a server, whose connections can be cut at will. */
export interface CuttingProxy extends AsyncDisposable {
  readonly url: string;
  /** Cuts every connection that stands; returns how many there were. */
  cut(): number;
  /** Bytes that clients have sent so far. */
  sentBytes(): number;
  /** Cuts the connection that brings the total of sent bytes over this; once. */
  cutAfterBytes(bytes: number): void;
}

export async function cuttingProxy(target: string): Promise<CuttingProxy> {
  const { hostname, port } = new URL(target);
  const open = new Set<Socket>();
  let sent = 0;
  let limit = Number.POSITIVE_INFINITY;
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      open.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        open.delete(socket);
        other.destroy();
      });
    }
    client.on('data', (data) => {
      sent += data.length;
      if (sent < limit) return;
      limit = Number.POSITIVE_INFINITY;
      client.resetAndDestroy();
    });
    client.pipe(upstream);
    upstream.pipe(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut() {
      const count = open.size;
      for (const socket of open) socket.resetAndDestroy();
      return count;
    },
    sentBytes: () => sent,
    cutAfterBytes(bytes) {
      limit = sent + bytes;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
