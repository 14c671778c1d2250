import { TLSSocket } from 'node:tls';

import { canonicalHost } from '../net/host.ts';
import { MAX_CLIENT_HELLO_BYTES, parseClientHello, type ClientHello } from '../net/client-hello.ts';
import { refused, type Refusal } from '../net/refusal.ts';
import { hostOfAuthority, recordDenied, requestOf, streamOf, type Client } from './client.ts';
import { decide, type FenceRule } from './gate.ts';
import { serveHttp } from './http-session.ts';
import { TLS_ACCESS_DENIED } from './http-refusal.ts';
import { closeGently, ConnectionFault, StreamReader, writeTo } from './stream-reader.ts';
import { tunnel } from './tunnel.ts';

/** Bytes between two looks at a ClientHello that comes in pieces. */
const STEP_BYTES = 512;

/**
 * Serves a connection whose first byte is that of TLS: judged by its server name, then passed on unopened or opened with a leaf of
 * this bottle's authority. A refusal is told inside TLS where a name to show was given, else by an alert. @throws ConnectionFault
 */
export async function serveTls(client: Client): Promise<void> {
  const { gate } = client;
  const hello = await readClientHello(client);
  if (hello.type === 'refused') {
    await alert(client, hello);
    return;
  }
  const named: Client = {
    ...client,
    serverName: hello.serverName,
    ...(hello.encryptedClientHello ? { encryptedClientHello: true } : {}),
  };
  const judged = await decide(gate, requestOf(named));
  if (judged.allow && judged.route.protocol !== 'http') {
    await tunnel(named, judged);
    return;
  }
  const host = hostToShow(named);
  const http =
    hello.protocols.length === 0 || hello.protocols.some((name) => name === 'http/1.1' || name === 'http/1.0');
  if (!http) {
    await alert(named, refused('http2', 'The client offers no HTTP/1.1 in ALPN.'));
    return;
  }
  if (host === undefined) {
    await alert(named, judged.allow ? refused('no-server-name', 'TLS without a server name.') : judged);
    return;
  }
  if (!judged.allow) recordDenied(named, judged);
  const secured = await openTls(named, host);
  await serveHttp(secured, { secure: true, refusal: judged.allow ? undefined : judged });
}

async function readClientHello({ gate, reader }: Client): Promise<ClientHello | Refusal> {
  const deadline = Date.now() + gate.limits.headTimeMs;
  let bytes = Buffer.alloc(0);
  for (let parsedAt = -STEP_BYTES; ;) {
    const piece = await reader.read(Math.max(1, deadline - Date.now()));
    if (piece === undefined) throw new ConnectionFault('broken', 'a ClientHello ended early', reader.stream);
    bytes = Buffer.concat([bytes, piece]);
    const ready = bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt16BE(3);
    if (!ready && bytes.length > 16 && bytes.length - parsedAt < STEP_BYTES) continue;
    parsedAt = bytes.length;
    const hello = parseClientHello(bytes);
    if (hello.type === 'incomplete' && bytes.length <= MAX_CLIENT_HELLO_BYTES) continue;
    reader.unread(bytes);
    return hello.type === 'incomplete' ? refused('bad-client-hello', 'A ClientHello is too long.') : hello;
  }
}

/** The name or address that the leaf is for: what the client asked for, be it denied, as long as it is one. */
function hostToShow({ serverName, authority, destination }: Client): string | undefined {
  const text = serverName ?? (authority === undefined ? destination : hostOfAuthority(authority));
  if (text === undefined) return undefined;
  const host = canonicalHost(text);
  return host.type === 'refused' ? undefined : host.text;
}

async function alert(
  client: Client,
  refusal: { readonly rule: Refusal['rule'] | FenceRule; readonly reason: string },
): Promise<void> {
  recordDenied(client, refusal);
  await writeTo(streamOf(client), TLS_ACCESS_DENIED, client.gate.limits.headTimeMs);
  await closeGently(client.reader);
}

function openTls(client: Client, host: string): Promise<Client> {
  const { gate, socket, reader } = client;
  reader.detach();
  return new Promise((resolve, reject) => {
    const stream = new TLSSocket(socket, {
      isServer: true,
      secureContext: gate.authority.contextFor(host),
      ALPNProtocols: ['http/1.1'],
    });
    const fail = (kind: 'slow' | 'broken', message: string) => {
      clearTimeout(timer);
      stream.destroy();
      reject(new ConnectionFault(kind, message, stream));
    };
    const timer = setTimeout(() => fail('slow', 'the TLS handshake did not end in time'), gate.limits.headTimeMs);
    const failed = () => fail('broken', 'the TLS handshake failed');
    stream.on('error', failed);
    stream.once('_tlsError', failed);
    stream.once('close', failed);
    stream.once('secure', () => {
      clearTimeout(timer);
      stream.off('close', failed);
      resolve({ ...client, reader: new StreamReader(stream) });
    });
  });
}
