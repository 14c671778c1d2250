import type { Socket } from 'node:net';

import { canonicalAddress } from '../net/address.ts';
import type { RequestHead } from '../net/http-head.ts';
import type { Judgement } from '../net/judge.ts';
import { serveTls } from './client-tls.ts';
import { recordDenied, requestOf, streamOf, type Client } from './client.ts';
import { decide, type FenceRefusal, type Gate } from './gate.ts';
import { refusalResponse } from './http-refusal.ts';
import { serveHttp } from './http-session.ts';
import { ConnectionFault, StreamReader, writeTo } from './stream-reader.ts';
import { tunnel } from './tunnel.ts';

const TLS_HANDSHAKE = 22;
/** A client that is refused and waits for the server to speak first is told by a reset after this time. */
const REFUSED_SILENCE_MS = 300;
/** From its first byte to the end of what it asks, so that a refusal in the words of its protocol can be given. */
const REFUSED_HEAD_MS = 400;
const REFUSED_HEAD_BYTES = 8192;

export interface Arrival {
  readonly socket: Socket;
  readonly id: number;
  /** The proxy's own port, or a port on which connections to anywhere are caught. */
  readonly kind: 'proxy' | 'caught';
}

/** Serves one connection of the bottle to its end. Never rejects for what a client or server does. */
export async function serveConnection(gate: Gate, { socket, id, kind }: Arrival): Promise<void> {
  const total = setTimeout(() => socket.resetAndDestroy(), gate.limits.totalTimeMs);
  const reader = new StreamReader(socket);
  const local = { gate, id, socket, reader };
  try {
    if (kind === 'proxy') {
      const client: Client = { ...local, transport: 'proxy', port: 80 };
      await serveHttp(client, { secure: false, onConnect: (head) => serveConnect(client, head) });
    } else {
      // What was dialled inside is the local address here: every address is local there.
      const destination = canonicalAddress(socket.localAddress ?? '');
      if (destination === undefined || socket.localPort === undefined) return;
      await serveCaught({ ...local, transport: 'transparent', port: socket.localPort, destination });
    }
  } catch (error) {
    if (!(error instanceof ConnectionFault)) throw error;
    // What is not complete must not look as if it were.
    socket.resetAndDestroy();
  } finally {
    clearTimeout(total);
    socket.destroy();
  }
}

async function serveCaught(client: Client): Promise<void> {
  const early = await decide(client.gate, requestOf(client));
  await serveOpaque(client, early);
}

/** Serves what comes on a caught connection or in a tunnel, by its first byte. */
async function serveOpaque(client: Client, early: Judgement | FenceRefusal): Promise<void> {
  const { gate, reader, socket } = client;
  if (early.allow && early.route.protocol === 'tcp') {
    await tunnel(client, early);
    return;
  }
  if (!early.allow && !(await hasAsked(reader))) {
    recordDenied(client, early);
    socket.resetAndDestroy();
    return;
  }
  let first: Buffer | undefined;
  try {
    first = await reader.read(gate.limits.headTimeMs);
  } catch (error) {
    if (!(error instanceof ConnectionFault) || error.kind !== 'slow') throw error;
    recordDenied(client, { rule: 'slow-client', reason: 'Nothing was sent in time.' });
    socket.resetAndDestroy();
    return;
  }
  if (first === undefined) return;
  reader.unread(first);
  if (first[0] === TLS_HANDSHAKE) await serveTls(client);
  else await serveHttp(client, { secure: false });
}

/** Whether a client that is to be refused said soon what it wants: a record of TLS, the head of a request, or a line of something else. */
async function hasAsked(reader: StreamReader): Promise<boolean> {
  let bytes = Buffer.alloc(0);
  let deadline = Date.now() + REFUSED_SILENCE_MS;
  try {
    while (!isWhole(bytes)) {
      const piece = await reader.read(Math.max(1, deadline - Date.now()));
      if (piece === undefined) return false;
      if (bytes.length === 0) deadline = Date.now() + REFUSED_HEAD_MS;
      bytes = Buffer.concat([bytes, piece]);
    }
    return true;
  } catch (error) {
    if (!(error instanceof ConnectionFault)) throw error;
    return false;
  } finally {
    reader.unread(bytes);
  }
}

function isWhole(bytes: Buffer): boolean {
  if (bytes.length >= REFUSED_HEAD_BYTES) return true;
  if (bytes[0] === TLS_HANDSHAKE) return bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt16BE(3);
  const line = bytes.indexOf(10);
  return line >= 0 && (bytes.includes('\r\n\r\n') || !/ HTTP\/1\.[01]\r?$/.test(bytes.toString('latin1', 0, line)));
}

/** Gives true when it took the connection over, false when CONNECT was refused and another request may follow. */
async function serveConnect(proxy: Client, head: RequestHead): Promise<boolean> {
  if (head.target.form !== 'authority') return false;
  const { hostText, port } = head.target.authority;
  const client: Client = { ...proxy, transport: 'connect', port, authority: `${hostText}:${port}` };
  const host = head.host === undefined ? {} : { host: head.host };
  const judged = await decide(client.gate, requestOf(client, host));
  const { headTimeMs } = client.gate.limits;
  if (!judged.allow) {
    recordDenied(client, judged);
    await writeTo(streamOf(client), refusalResponse(judged, { keepAlive: head.keepAlive, withBody: true }), headTimeMs);
    return false;
  }
  await writeTo(streamOf(client), 'HTTP/1.1 200 Connection Established\r\n\r\n', headTimeMs);
  await serveOpaque(client, judged);
  return true;
}
