import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';

import { parseAddress } from '../net/address.ts';
import type { FenceRefusal, FenceRule, Gate } from './gate.ts';
import { keepReading, StreamReader } from './stream-reader.ts';

export interface Upstream {
  readonly stream: Duplex;
  readonly reader: StreamReader;
  /** Canonical; the one that was judged and dialled. */
  readonly address: string;
}

export interface Dial {
  /** Canonical name or address: what the certificate must be for. */
  readonly host: string;
  readonly port: number;
  /** Judged addresses; nothing else is dialled. */
  readonly addresses: readonly string[];
  /** The one the client was on its way to, which goes first. */
  readonly preferred?: string | undefined;
  readonly secure: boolean;
}

class Unreachable extends Error {
  readonly rule: FenceRule;
  constructor(rule: FenceRule, reason: string) {
    super(reason);
    this.rule = rule;
  }
}

/** Connects to one of the judged addresses; gives why it cannot. */
export async function dial(gate: Gate, to: Dial): Promise<Upstream | FenceRefusal> {
  const deadline = Date.now() + gate.limits.connectTimeMs;
  let socket: Socket | undefined;
  try {
    socket = await dialTcp(to, deadline);
    const address = parseAddress(socket.remoteAddress ?? '')?.text ?? '';
    if (!to.addresses.includes(address))
      throw new Unreachable('upstream-unreachable', 'another address than judged took the call');
    const stream = to.secure ? await secured(gate, socket, to, deadline) : socket;
    keepReading(stream);
    return { stream, reader: new StreamReader(stream), address };
  } catch (error) {
    socket?.destroy();
    if (!(error instanceof Unreachable)) throw error;
    return { allow: false, rule: error.rule, reason: error.message };
  }
}

function dialTcp({ host, port, addresses, preferred }: Dial, deadline: number): Promise<Socket> {
  const ordered =
    preferred !== undefined && addresses.includes(preferred)
      ? [preferred, ...addresses.filter((address) => address !== preferred)]
      : addresses;
  return new Promise((resolve, reject) => {
    const socket = connectTcp({
      // A name that no resolver is asked for: the addresses are given.
      host: 'judged.invalid',
      port,
      noDelay: true,
      allowHalfOpen: true,
      autoSelectFamily: true,
      autoSelectFamilyAttemptTimeout: 500,
      lookup: (_name, _options, callback) => {
        callback(
          null,
          ordered.map((address) => ({ address, family: isIP(address) })),
        );
      },
    });
    const fail = (rule: FenceRule, reason: string) => {
      socket.destroy();
      clearTimeout(timer);
      reject(new Unreachable(rule, reason));
    };
    const timer = setTimeout(
      () => fail('upstream-timeout', `${host} did not take the connection in time.`),
      Math.max(1, deadline - Date.now()),
    );
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const refused = causesOf(error).includes('ECONNREFUSED');
      const why = refused ? 'refused the connection' : `cannot be reached (${causesOf(error)[0] ?? 'no reason given'})`;
      fail(
        causesOf(error).includes('ETIMEDOUT') && !refused ? 'upstream-timeout' : 'upstream-unreachable',
        `${host} ${why}.`,
      );
    });
    socket.once('connect', () => {
      clearTimeout(timer);
      resolve(socket);
    });
  });
}

/** Codes of an error or, where every address failed, of each. */
function causesOf(error: NodeJS.ErrnoException): readonly string[] {
  const all = error instanceof AggregateError ? (error.errors as NodeJS.ErrnoException[]) : [error];
  return all.flatMap(({ code }) => (typeof code === 'string' ? [code] : []));
}

function secured(gate: Gate, socket: Socket, { host }: Dial, deadline: number): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const stream = connectTls({
      socket,
      host,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      secureContext: gate.upstreamTrust(),
      ALPNProtocols: ['http/1.1'],
      rejectUnauthorized: true,
    });
    const fail = (rule: FenceRule, reason: string) => {
      stream.destroy();
      clearTimeout(timer);
      reject(new Unreachable(rule, reason));
    };
    const timer = setTimeout(
      () => fail('upstream-timeout', `${host} did not finish the TLS handshake in time.`),
      Math.max(1, deadline - Date.now()),
    );
    stream.on('error', (error: NodeJS.ErrnoException) => {
      const code = error.code ?? 'no reason given';
      // Codes of X.509 verification have no prefix; those of the handshake do.
      const certificate =
        code === 'ERR_TLS_CERT_ALTNAME_INVALID' || (!code.startsWith('E') && /^[A-Z0-9_]+$/.test(code));
      if (certificate) fail('upstream-certificate', `The certificate of ${host} is not trusted (${code}).`);
      else fail('upstream-tls', `TLS to ${host} failed (${code}).`);
    });
    stream.once('close', () => fail('upstream-tls', `${host} closed the connection during the TLS handshake.`));
    stream.once('secureConnect', () => {
      clearTimeout(timer);
      resolve(stream);
    });
  });
}
