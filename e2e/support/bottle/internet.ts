import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { connect, createServer, type ListenOptions, type NetConnectOpts, type Server } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { makeCertificates } from './certificates.ts';
import { serveNames, type Zone } from './name-server.ts';

/** Addresses that the network namespace of the tests has on its one interface. */
export const ALLOWED = '203.0.113.5';
export const ALLOWED_V6 = '2001:db8::5';
export const NAME_SERVER = '203.0.113.53';
/** An address of the internet that no route names. */
export const FORBIDDEN = '203.0.113.66';
export const FORBIDDEN_V6 = '2001:db8::66';
export const PRIVATE = '10.1.2.3';
export const METADATA = ['169.254.169.254', '169.254.170.2', '100.100.100.200', 'fd00:ec2::254'] as const;
export const PUBLIC_RESOLVER = '8.8.8.8';
/** Where docker has its gateway. */
export const GATEWAY = '172.17.0.1';
const ADDRESSES = [ALLOWED, NAME_SERVER, FORBIDDEN, PRIVATE, ...METADATA.slice(0, 3), PUBLIC_RESOLVER, GATEWAY];
const ADDRESSES_V6 = [ALLOWED_V6, FORBIDDEN_V6, METADATA[3], 'fd12::1'];

/** TCP ports on which something listens at every forbidden address. */
export const FORBIDDEN_PORTS = [22, 25, 80, 443, 853, 5432, 6667] as const;
/** Ports of services of the host: on every address, on loopback, and by UDP. */
export const HOST_PORT = 7801;
export const LOOPBACK_PORT = 7802;
export const ABSTRACT_SOCKET = 'decant-escape-host';
/** A socket of the operator's, such as that of an agent for keys, in the folder of the tests. */
export const OPERATOR_SOCKET = 'operator.sock';
/** Longest wait for the listeners to have counted one byte each, milliseconds. */
const COUNT_MS = 60_000;

/** What a forbidden listener or an allowed server saw. */
export interface Sightings {
  /** Connections and bytes at listeners that nothing may reach, by where they listen. */
  readonly forbidden: Readonly<Record<string, { readonly connections: number; readonly bytes: number }>>;
  /** Names that the resolver was asked for, each as often as it was. */
  readonly names: readonly string[];
  /** Requests at the allowed servers. */
  readonly requests: readonly SeenRequest[];
}

export interface SeenRequest {
  readonly server: 'https' | 'http';
  readonly host: string;
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly bodyBytes: number;
}

export interface Internet extends AsyncDisposable {
  readonly caFile: string;
  readonly caPem: string;
  sightings(): Sightings;
}

/**
 * Makes the internet of the tests in the network namespace of this process, which must be a new one: addresses on `lo`, a resolver, servers
 * with a certificate of their own authority, and listeners that count what must never come.
 */
export async function startInternet(folder: string): Promise<Internet> {
  configureInterface();
  const certificates = makeCertificates(folder, [
    'allowed.test',
    '*.wild.test',
    'other.test',
    'pinned.test',
    'rebind.test',
  ]);
  const forbidden: Record<string, Count> = {};
  const requests: SeenRequest[] = [];
  const closers: (() => void)[] = [];
  const answer = answerTo(requests);
  const open = async (server: Server, where: ListenOptions) => {
    server.listen(where);
    await once(server, 'listening');
    closers.push(() => server.close());
  };
  const servers: [Server, { host: string; port: number }][] = [];
  for (const host of [ALLOWED, ALLOWED_V6]) {
    servers.push([
      createHttps({ key: certificates.key, cert: certificates.certificate }, answer('https')),
      { host, port: 443 },
    ]);
    servers.push([createHttp(answer('http')), { host, port: 80 }]);
  }
  for (const [server, where] of servers) await open(server, where);
  const traps: [string, NetConnectOpts & ListenOptions][] = [
    ['tcp public resolver', { host: PUBLIC_RESOLVER, port: 53 }],
    ['tcp everywhere', { host: '::', port: HOST_PORT }],
    ['tcp loopback', { host: '127.0.0.1', port: LOOPBACK_PORT }],
    ['abstract socket', { path: `\0${ABSTRACT_SOCKET}` }],
    ['socket of the operator', { path: join(folder, OPERATOR_SOCKET) }],
  ];
  for (const host of [FORBIDDEN, FORBIDDEN_V6, PRIVATE, ...METADATA, GATEWAY, PUBLIC_RESOLVER, '127.0.0.1', '::1']) {
    for (const port of FORBIDDEN_PORTS) traps.push([`tcp ${host} ${port}`, { host, port }]);
  }
  for (const port of [22, 25, 5432, 6667, 853]) traps.push([`tcp ${ALLOWED} ${port}`, { host: ALLOWED, port }]);
  for (const [name, where] of traps) {
    await open(counting(forbidden, name), where);
    await reachOnce(where, name);
  }
  for (const [address, port] of [
    [PUBLIC_RESOLVER, 53],
    [FORBIDDEN, 443],
    [FORBIDDEN, 123],
    [ALLOWED, 443],
    [GATEWAY, HOST_PORT],
  ] as const) {
    closers.push(await countDatagrams(forbidden, address, port));
  }
  await allCount(forbidden);
  const names: string[] = [];
  closers.push(
    await serveNames(NAME_SERVER, { zone: ZONE, rebinding: /^rebind-\d+\.wild\.test$/, address: ALLOWED }, names),
  );
  return {
    caFile: join(folder, 'ca.pem'),
    caPem: certificates.authority,
    sightings: () => structuredClone({ forbidden, names, requests }),
    [Symbol.asyncDispose]: async () => {
      for (const close of closers.toReversed()) close();
    },
  };
}

function configureInterface(): void {
  const ip = (...args: string[]) => execFileSync('ip', args);
  ip('link', 'set', 'lo', 'up');
  for (const address of ADDRESSES) ip('address', 'add', `${address}/32`, 'dev', 'lo');
  for (const address of ADDRESSES_V6) ip('-6', 'address', 'add', `${address}/128`, 'dev', 'lo', 'nodad');
}

interface Count {
  connections: number;
  bytes: number;
}

/** What nothing may reach can be reached from here, so that its silence says something. */
async function reachOnce(where: NetConnectOpts, name: string): Promise<void> {
  const socket = connect(where);
  socket.write('x');
  const [answer] = (await once(socket, 'data')) as [Buffer];
  if (!answer.includes('REACHED')) throw new Error(`nothing counts at ${name}`);
  socket.destroy();
}

/** Waits until every one of them has counted what was sent to it, and begins anew. */
async function allCount(counts: Record<string, Count>): Promise<void> {
  const deadline = performance.now() + COUNT_MS;
  const blind = () => Object.entries(counts).filter(([, { connections, bytes }]) => connections !== 1 || bytes !== 1);
  while (blind().length > 0) {
    if (performance.now() > deadline) throw new Error(`these do not count: ${JSON.stringify(blind())}`);
    await sleep(10);
  }
  for (const count of Object.values(counts)) Object.assign(count, { connections: 0, bytes: 0 });
}

function counting(counts: Record<string, Count>, name: string): Server {
  const count = { connections: 0, bytes: 0 };
  counts[name] = count;
  return createServer((socket) => {
    count.connections++;
    socket.on('data', (bytes: Buffer) => void (count.bytes += bytes.length));
    socket.on('error', () => undefined);
    // What gets through gets an answer, so that nobody takes silence for a refusal.
    socket.write('HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nREACHED');
  });
}

async function countDatagrams(counts: Record<string, Count>, address: string, port: number): Promise<() => void> {
  const count = { connections: 0, bytes: 0 };
  counts[`udp ${address} ${port}`] = count;
  const socket = createSocket('udp4');
  socket.on('message', (message) => {
    count.connections++;
    count.bytes += message.length;
  });
  socket.bind(port, address);
  await once(socket, 'listening');
  const sender = createSocket('udp4');
  sender.send('x', port, address, () => sender.close());
  return () => socket.close();
}

/** An allowed server: says what it was asked, redirects, and streams. */
function answerTo(
  requests: SeenRequest[],
): (server: 'https' | 'http') => (request: IncomingMessage, response: ServerResponse) => void {
  return (server) => (request, response) => {
    let bodyBytes = 0;
    request.on('data', (bytes: Buffer) => void (bodyBytes += bytes.length));
    request.on('error', () => undefined);
    request.on('end', () => {
      const url = request.url ?? '';
      const seen: SeenRequest = {
        server,
        host: request.headers.host ?? '',
        method: request.method ?? '',
        url,
        headers: request.headers,
        bodyBytes,
      };
      requests.push(seen);
      const [, status, to] = /^\/redirect\/(\d{3})\?to=(.*)$/.exec(url) ?? [];
      if (status !== undefined && to !== undefined) {
        response.writeHead(Number(status), { location: decodeURIComponent(to) }).end();
        return;
      }
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ answered: true, ...seen, headers: undefined }));
    });
  };
}

const ZONE: Zone = {
  'allowed.test': { A: [ALLOWED], AAAA: [ALLOWED_V6] },
  'six.wild.test': { AAAA: [ALLOWED_V6] },
  'one.wild.test': { A: [ALLOWED] },
  'api.wild.test': { A: [ALLOWED] },
  'other.test': { A: [ALLOWED] },
  'pinned.test': { A: [ALLOWED] },
  'loopback.test': { A: ['127.0.0.1'] },
  'mixed.test': { A: [ALLOWED, '127.0.0.1'] },
  'mixed6.test': { A: [ALLOWED], AAAA: ['::1'] },
  'chain.test': { CNAME: 'inner.test', A: [PRIVATE] },
  'private.test': { A: [PRIVATE] },
  'ula.test': { AAAA: ['fd12::1'] },
  'mapped.test': { AAAA: ['::ffff:127.0.0.1'] },
  'nat64.test': { AAAA: ['64:ff9b::7f00:1'] },
  'meta.test': { A: ['169.254.169.254'] },
  'meta6.test': { AAAA: ['fd00:ec2::254'] },
  'metadata.google.internal': { A: ['169.254.169.254'] },
  'host.docker.internal': { A: [GATEWAY] },
  '127.0.0.1.nip.test': { A: ['127.0.0.1'] },
  'evil.test': { A: [FORBIDDEN], AAAA: [FORBIDDEN_V6] },
};
