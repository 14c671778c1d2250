import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/** A TCP proxy before a server, whose connections can be cut at will. */
export interface CuttingProxy extends AsyncDisposable {
  readonly url: string;
  /** Connections that were cut so far. */
  cuts(): number;
  /** Bytes that clients have sent so far. */
  sentBytes(): number;
  /** Cuts the connection that brings the total of sent bytes over this; once. */
  cutAfterBytes(bytes: number): void;
  /** Cuts each of the next connections that bring an event stream after this many bytes of the answer. */
  cutStreams(times: number, bytes: number): void;
}

export async function cuttingProxy(target: string): Promise<CuttingProxy> {
  const { hostname, port } = new URL(target);
  const open = new Set<Socket>();
  let sent = 0;
  let limit = Number.POSITIVE_INFINITY;
  let cuts = 0;
  let streams = { times: 0, bytes: 0 };
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
      cuts += 1;
      client.resetAndDestroy();
    });
    client.pipe(upstream);
    let streamed: number | undefined;
    upstream.on('end', () => client.end());
    upstream.on('data', (data) => {
      if (streams.times > 0 && data.includes('text/event-stream')) streamed ??= 0;
      const room = streamed === undefined || streams.times === 0 ? data.length + 1 : streams.bytes - streamed;
      if (data.length >= room) {
        streams = { ...streams, times: streams.times - 1 };
        cuts += 1;
        upstream.pause();
        client.write(data.subarray(0, room));
        client.destroySoon();
        return;
      }
      if (streamed !== undefined) streamed += data.length;
      if (client.write(data)) return;
      upstream.pause();
      client.once('drain', () => upstream.resume());
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cuts: () => cuts,
    sentBytes: () => sent,
    cutAfterBytes(bytes) {
      limit = sent + bytes;
    },
    cutStreams(times, bytes) {
      streams = { times, bytes };
    },
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
