import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import type { SecureContext } from 'node:tls';

import { WebSocketServer } from 'ws';

import type { AuditEvent } from '../audit/audit-event.ts';
import { Authority } from '../egress/authority.ts';
import type { Fence } from '../fence/fence.ts';
import { openFence } from '../fence/open-fence.ts';
import { encodeDnsAnswer, parseDnsQuery } from '../net/dns-message.ts';
import type { Answer, Order, Question } from './internet-messages.ts';

/**
 * A process in a network namespace of its own (`unshare --net`) that plays the internet: addresses on `lo`, a DNS server, HTTPS, HTTP and TCP
 * servers, listeners that nobody may reach. The fences under test are opened here too, so that their sidecars dial these servers.
 */
const DNS = '203.0.113.53';
const ALLOWED = ['203.0.113.10', '2001:db8::10'];
const FORBIDDEN = '203.0.113.20';
const UNTRUSTED = '203.0.113.30';
const PRIVATE = '10.9.8.7';
const NAMES: Readonly<Record<string, readonly string[]>> = {
  'api.example.com': ALLOWED,
  'pinned.example.com': [ALLOWED[0]!],
  'six.example.com': [ALLOWED[1]!],
  'untrusted.example.com': [UNTRUSTED],
  'forbidden.example.com': [FORBIDDEN],
  'private.example.com': [PRIVATE],
  'mixed.example.com': [ALLOWED[0]!, '127.0.0.1'],
  'dead.example.com': ['203.0.113.40'],
  'misnamed.example.com': ALLOWED,
};

const asked: string[] = [];
const forbidden = { connections: 0, bytes: 0 };
let aborted = 0;
const events: AuditEvent[] = [];
let fence: Fence | undefined;
const gitFolder = process.argv[2];

const authority = new Authority();

async function main(): Promise<void> {
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  for (const address of [DNS, ...ALLOWED, FORBIDDEN, UNTRUSTED, PRIVATE, '203.0.113.40']) {
    const six = address.includes(':');
    const mask = six ? ['128'] : ['32'];
    execFileSync('ip', ['addr', 'add', `${address}/${mask[0]}`, 'dev', 'lo', ...(six ? ['nodad'] : [])]);
  }
  await serveDns();
  for (const address of ALLOWED) {
    await listen(https(authority), 443, address);
    await listen(https(authority), 8443, address);
    await listen(createHttpServer(handle), 80, address);
    await listen(createHttpServer(handle), 8080, address);
    await listen(createTcpServer(greet), 2222, address);
    await listen(createTcpServer(misbehave), 8081, address);
  }
  await listen(createHttpServer(handle), 80, PRIVATE);
  await listen(https(new Authority()), 443, UNTRUSTED);
  for (const port of [22, 80, 443, 2222]) {
    await listen(
      createTcpServer((socket) => {
        forbidden.connections++;
        socket.on('error', () => undefined);
        socket.on('data', (data) => (forbidden.bytes += data.length));
      }),
      port,
      FORBIDDEN,
    );
  }
  process.on('message', (question: Question) => {
    void answer(question);
  });
  process.on('disconnect', () => process.exit(0));
  process.send?.({ ready: authority.certificatePem });
}

async function answer({ id, order }: Question): Promise<void> {
  let reply: Answer;
  try {
    reply = { id, value: await obey(order) };
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    reply = { id, error: { code, message } };
  }
  process.send?.(reply);
}

async function obey(order: Order): Promise<unknown> {
  if (order.type === 'open') {
    await fence?.close();
    events.length = 0;
    fence = await openFence({
      network: 'new',
      resolvers: [DNS],
      upstreamCaPem: authority.certificatePem,
      onAudit: (event) => events.push(event),
      ...order.options,
    });
    const { networkNamespace, processId, certificatePem, env } = fence;
    return { networkNamespace, processId, certificatePem, env };
  }
  if (order.type === 'seen') return { asked, forbidden, aborted, events };
  if (fence === undefined) throw new Error('no fence is open');
  if (order.type === 'reload') return await fence.reload(order.policy);
  if (order.type === 'stats') return await fence.stats();
  if (order.type === 'ended') return await fence.ended;
  return await fence.close();
}

async function serveDns(): Promise<void> {
  const socket = createSocket('udp4');
  socket.on('message', (packet, from) => {
    const query = parseDnsQuery(packet);
    if (query.type === 'refused') return;
    asked.push(query.name);
    const addresses = NAMES[query.name.toLowerCase()];
    const rcode = addresses === undefined ? 'NXDOMAIN' : 'NOERROR';
    socket.send(encodeDnsAnswer(query, { rcode, addresses: addresses ?? [] }, 'udp'), from.port, from.address);
  });
  socket.bind(53, DNS);
  await once(socket, 'listening');
}

async function listen(server: Server, port: number, address: string): Promise<void> {
  server.listen(port, address);
  await once(server, 'listening');
}

function https(signer: Authority) {
  const SNICallback = (name: string, done: (error: Error | null, context?: SecureContext) => void) => {
    // A server that is trusted, but not for this name.
    done(null, signer.contextFor(name === 'misnamed.example.com' ? 'api.example.com' : name));
  };
  const server = createHttpsServer({ SNICallback, ALPNProtocols: ['http/1.1'] }, handle);
  const sockets = new WebSocketServer({ server, path: '/socket' });
  sockets.on('connection', (socket) => {
    socket.on('message', (data, binary) => socket.send(data, { binary }));
    socket.on('close', () => aborted++);
  });
  return server;
}

/** A server that speaks first. */
function greet(socket: Socket): void {
  socket.on('error', () => undefined);
  socket.write('220 hello\r\n');
  socket.pipe(socket);
}

/** Answers that are no HTTP, by the path that is asked for. */
function misbehave(socket: Socket): void {
  socket.on('error', () => undefined);
  socket.once('data', (data) => {
    const path = data.toString('latin1').split(' ')[1];
    if (path === '/garbage') socket.end('SSH-2.0-OpenSSH\r\n\r\n');
    else if (path === '/hang') return;
    else if (path === '/gone') socket.destroy();
    else if (path === '/short') socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.');
    else if (path === '/long-head') socket.end(`HTTP/1.1 200 OK\r\n${'x: y\r\n'.repeat(100_000)}`);
    else if (path === '/two-lengths')
      socket.end('HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345');
    else if (path === '/endless-100') socket.end('HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(100));
    else if (path === '/until-close') socket.end('HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end');
    else socket.end('HTTP/1.1 204 No Content\r\n\r\n');
  });
}

function handle(request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url ?? '/', 'http://any.invalid');
  request.on('aborted', () => aborted++);
  request.on('error', () => undefined);
  if (url.pathname === '/big') return sendBig(response, Number(url.searchParams.get('mib')));
  if (url.pathname === '/redirect') {
    response.writeHead(302, { location: url.searchParams.get('to') ?? '' }).end('elsewhere');
    return;
  }
  if (url.pathname === '/hints') response.writeEarlyHints({ link: '</style.css>; rel=preload' });
  if (url.pathname === '/trailers') {
    response.writeHead(200, { trailer: 'x-sum' });
    response.write('part one, ');
    response.write('part two');
    response.addTrailers({ 'x-sum': '18' });
    response.end();
    return;
  }
  if (url.pathname === '/too-large') {
    response.writeHead(413, { connection: 'close' }).end('no');
    return;
  }
  if (url.pathname.startsWith('/repository.git/') && gitFolder !== undefined && !url.pathname.includes('..')) {
    const file = createReadStream(`${gitFolder}${url.pathname}`);
    file.on('error', () => response.writeHead(404).end());
    file.pipe(response);
    return;
  }
  const hash = createHash('sha256');
  let bytes = 0;
  request.on('data', (data: Buffer) => {
    hash.update(data);
    bytes += data.length;
  });
  request.on('end', () => {
    const { method, headers, trailers, httpVersion } = request;
    const facts = { method, url: request.url, headers, trailers, httpVersion, bytes, sha256: hash.digest('hex') };
    response.setHeader('content-type', 'application/json');
    response.end(`${JSON.stringify(facts)}\n`);
  });
}

function sendBig(response: ServerResponse, mib: number): void {
  const block = Buffer.alloc(1024 * 1024, 'decant ');
  response.writeHead(200, { 'content-length': mib * block.length });
  let left = mib;
  const more = () => {
    while (left > 0) {
      left--;
      if (!response.write(block)) {
        response.once('drain', more);
        return;
      }
    }
    response.end();
  };
  more();
}

await main();
