import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage, type Server as HttpServer, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';

import { Authority } from '../egress/authority.ts';
import { encodeDnsAnswer, parseDnsQuery } from '../net/dns-message.ts';

/** Addresses that stand for the internet; they are on `lo` of this process's own network namespace. */
export const ADDRESSES = {
  dns: '203.0.113.53',
  allowed: '203.0.113.10',
  allowed6: '2001:db8::10',
  other: '203.0.113.20',
} as const;

/** Gives this process's namespace the addresses. It must be one of its own: `unshare --net`. */
export function addAddresses(): void {
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  for (const address of Object.values(ADDRESSES)) {
    const six = address.includes(':');
    execFileSync('ip', ['addr', 'add', `${address}/${six ? 128 : 32}`, 'dev', 'lo', ...(six ? ['nodad'] : [])]);
  }
}

/** A DNS server over real UDP that counts what it was asked. */
export async function openDns(names: Readonly<Record<string, readonly string[]>>) {
  const asked: string[] = [];
  const socket = createSocket('udp4');
  socket.on('message', (packet, from) => {
    const query = parseDnsQuery(packet);
    if (query.type === 'refused') return;
    asked.push(query.name);
    const addresses = names[query.name.toLowerCase()];
    const rcode = addresses === undefined ? 'NXDOMAIN' : 'NOERROR';
    socket.send(encodeDnsAnswer(query, { rcode, addresses: addresses ?? [] }, 'udp'), from.port, from.address);
  });
  socket.bind(53, ADDRESSES.dns);
  await once(socket, 'listening');
  return { asked, close: () => socket.close() };
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** An HTTPS server whose certificate is for the name of each ClientHello. */
export async function openHttps(authority: Authority, address: string, handler: Handler, port = 443): Promise<HttpsServer> {
  const server = createHttpsServer(
    { SNICallback: (name, done) => done(null, authority.contextFor(name)), key: '', cert: '' } as never,
    handler,
  );
  return await listening(server, address, port);
}

export async function openHttp(address: string, handler: Handler, port = 80): Promise<HttpServer> {
  return await listening(createHttpServer(handler), address, port);
}

export async function openTcp(address: string, port: number, serve: (socket: Socket) => void): Promise<Server> {
  return await listening(createTcpServer(serve), address, port);
}

async function listening<S extends Server>(server: S, address: string, port: number): Promise<S> {
  server.listen(port, address);
  await once(server, 'listening');
  return server;
}
