import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';

import { DNS_PORT, PROXY_PORT } from '../fence/ports.ts';
import { serveConnection } from './client-connection.ts';
import { serveDnsTcp, serveDnsUdp } from './dns-server.ts';
import type { Gate } from './gate.ts';
import type { OpenListener } from './listeners.ts';
import { refusedCounts, type RefusedCounts } from './refused-ports.ts';

const POLL_MS = 500;

/** Serves the open listeners of one namespace by one gate. */
export class EgressServer {
  readonly #gate: Gate;
  readonly #listeners: readonly OpenListener[];
  readonly #servers: (Server | DatagramSocket)[] = [];
  readonly #sockets = new Set<Socket>();
  #poll: NodeJS.Timeout | undefined;
  #seen: RefusedCounts = { connections: 0, datagrams: 0 };

  constructor(gate: Gate, listeners: readonly OpenListener[]) {
    this.#gate = gate;
    this.#listeners = listeners;
  }

  async start(): Promise<void> {
    await Promise.all(
      this.#listeners.map(async ({ kind, port, fd }) => {
        if (kind === 'tcp') await this.#listenTcp(port, fd);
        else if (kind === 'udp4' || kind === 'udp6') await this.#listenUdp(kind, fd);
      }),
    );
    this.#poll = setInterval(() => this.countRefused(), POLL_MS);
  }

  /** Reads the namespace's own counters and records what is new. */
  countRefused(): void {
    const fdOf = (kind: OpenListener['kind']) => this.#listeners.find((listener) => listener.kind === kind)?.fd;
    const now = refusedCounts(fdOf('snmp'), fdOf('snmp6'));
    const connections = Math.max(0, now.connections - this.#seen.connections);
    const datagrams = Math.max(0, now.datagrams - this.#seen.datagrams);
    this.#seen = now;
    const { counters, recorder } = this.#gate;
    counters.refusedConnections += connections;
    counters.refusedDatagrams += datagrams;
    const common = { type: 'namespace', decision: 'deny', rule: 'closed-port' } as const;
    if (connections > 0) {
      const reason = 'Connections to ports that no route names were refused by the network namespace.';
      recorder.record({ ...common, count: connections, reason });
    }
    if (datagrams > 0) {
      const reason = 'Datagrams other than questions to DNS were refused by the network namespace.';
      recorder.record({ ...common, count: datagrams, reason });
    }
  }

  close(): void {
    clearInterval(this.#poll);
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #listenTcp(port: number, fd: number): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#arrived(port, socket));
    this.#servers.push(server);
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ fd }, () => {
        server.off('error', reject);
        // Accepting may fail for a moment, as when descriptors run out.
        server.on('error', () => undefined);
        resolve();
      });
    });
  }

  #listenUdp(kind: 'udp4' | 'udp6', fd: number): Promise<void> {
    const socket = createSocket(kind);
    this.#servers.push(socket);
    serveDnsUdp(this.#gate, socket);
    return new Promise((resolve) => {
      socket.bind({ fd }, resolve);
    });
  }

  #arrived(port: number, socket: Socket): void {
    const { counters, limits } = this.#gate;
    socket.on('error', () => undefined);
    if (this.#sockets.size >= limits.connections) {
      counters.droppedConnections++;
      socket.resetAndDestroy();
      return;
    }
    counters.connections++;
    counters.openConnections++;
    this.#sockets.add(socket);
    socket.once('close', () => {
      counters.openConnections--;
      this.#sockets.delete(socket);
    });
    const id = counters.connections;
    const served =
      port === DNS_PORT
        ? serveDnsTcp(this.#gate, socket)
        : serveConnection(this.#gate, { socket, id, kind: port === PROXY_PORT ? 'proxy' : 'caught' });
    served.catch((error: unknown) => {
      // A fault of ours ends one connection, and is told without anything that the connection carried.
      socket.destroy();
      console.error(
        `connection ${id} to port ${port}: ${error instanceof Error ? (error.stack ?? error.name) : 'failed'}`,
      );
    });
  }
}
