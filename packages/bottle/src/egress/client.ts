import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

import type { AuditEvent } from '../audit/audit-event.ts';
import { parseAuthority } from '../net/authority.ts';
import type { EgressRequest, Transport } from '../net/policy.ts';
import type { Gate } from './gate.ts';
import { StreamReader } from './stream-reader.ts';

/** One connection of the bottle, and what is known of it so far. */
export interface Client {
  readonly gate: Gate;
  /** Number of the connection in this fence. */
  readonly id: number;
  readonly transport: Transport;
  /** Port that was asked for. */
  readonly port: number;
  readonly destination?: string | undefined;
  readonly authority?: string | undefined;
  readonly serverName?: string | null | undefined;
  readonly encryptedClientHello?: boolean | undefined;
  /** The connection itself, below any TLS. */
  readonly socket: Socket;
  /** What is read of and written to it now. */
  readonly reader: StreamReader;
}

export function streamOf(client: Client): Duplex {
  return client.reader.stream;
}

/** What the verdict is asked with, as far as the connection tells. */
export function requestOf(client: Client, more: Partial<EgressRequest> = {}): EgressRequest {
  const { transport, port, destination, authority, serverName, encryptedClientHello } = client;
  return {
    transport,
    port,
    ...(destination === undefined ? {} : { destination }),
    ...(authority === undefined ? {} : { authority }),
    ...(serverName === undefined ? {} : { serverName }),
    ...(encryptedClientHello === undefined ? {} : { encryptedClientHello }),
    ...more,
  };
}

/** What every event about this connection says. */
export function eventOf(client: Client): Pick<AuditEvent, 'transport' | 'connection' | 'host' | 'port' | 'address'> {
  const { authority, serverName, destination } = client;
  return {
    transport: client.transport,
    connection: client.id,
    host: serverName ?? (authority === undefined ? destination : hostOfAuthority(authority)),
    port: client.port,
    address: destination,
  };
}

/** Records that a connection was refused. */
export function recordDenied(client: Client, refusal: { readonly rule: string; readonly reason: string }): void {
  client.gate.counters.deniedConnections++;
  client.gate.recorder.record({
    ...eventOf(client),
    type: 'connection',
    decision: 'deny',
    rule: refusal.rule,
    reason: refusal.reason,
  });
}

/** The canonical host of a CONNECT authority, which was parsed before. */
export function hostOfAuthority(authority: string): string | undefined {
  const parsed = parseAuthority(authority);
  return parsed.type === 'refused' ? undefined : parsed.host.text;
}
