import { ByteReader } from './byte-reader.ts';
import { refused, type Refusal } from './refusal.ts';

export interface ClientHello {
  readonly type: 'hello';
  /** As it was written; null when there is none. */
  readonly serverName: string | null;
  /** Protocols of ALPN, in order; empty when there are none. */
  readonly protocols: readonly string[];
  /** Whether there is an encrypted ClientHello, or the grease that some browsers always send in its place. */
  readonly encryptedClientHello: boolean;
}

/** More bytes are needed. */
export interface Incomplete {
  readonly type: 'incomplete';
}

/** Most bytes of records of one ClientHello. Those of post-quantum key shares have about 2 KiB; a message may have 16 KiB. */
export const MAX_CLIENT_HELLO_BYTES = 16_384 + 1024;
const MAX_MESSAGE = 16_384;
const MAX_RECORD = 16_384;
/** Most records: a ClientHello cut in more pieces is cut to hide it. */
const MAX_RECORDS = 64;
const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME = 0;
const ALPN = 16;
const ENCRYPTED_CLIENT_HELLO = 0xfe0d;

/**
 * Reads the first bytes of a TLS connection (RFC 8446, 4.1.2 and 5.1) without consuming them. The message may be cut into several records. Two server
 * names, extensions of one type, and lengths that do not add up are refused: which of two a server takes is not known.
 */
export function parseClientHello(bytes: Uint8Array): ClientHello | Incomplete | Refusal {
  const message = messageOf(bytes);
  return message instanceof Uint8Array ? parseMessage(message) : message;
}

/** The handshake message within the records; its first four bytes are type and length. */
function messageOf(bytes: Uint8Array): Uint8Array | Incomplete | Refusal {
  const pieces: Uint8Array[] = [];
  let have = 0;
  for (let at = 0, records = 0; ; records++) {
    if (records === MAX_RECORDS) return refused('bad-client-hello', 'A ClientHello is cut into too many records.', at);
    const header = bytes.subarray(at, at + 5);
    // Each byte is judged as it comes, so that what is no TLS is known at its first one.
    if (header[0] !== undefined && header[0] !== HANDSHAKE)
      return refused('bad-client-hello', 'This is not a TLS handshake.', at);
    if (header[1] !== undefined && header[1] !== 3)
      return refused('bad-client-hello', 'A TLS record is of another version than 3.x.', at + 1);
    const length = header.length < 5 ? undefined : (header[3]! << 8) | header[4]!;
    if (length === 0 || (length !== undefined && length > MAX_RECORD)) {
      return refused('bad-client-hello', 'A TLS record is empty or too long.', at + 3);
    }
    const body = bytes.subarray(at + 5, at + 5 + (length ?? 0));
    pieces.push(body);
    have += body.length;
    const message = pieces.length === 1 ? body : Buffer.concat(pieces, have);
    const fault = messageFault(message, at + 5);
    if (fault !== undefined) return fault;
    const size = message.length < 4 ? undefined : 4 + ((message[1]! << 16) | (message[2]! << 8) | message[3]!);
    if (size !== undefined && have >= size) {
      // What follows in the same record would be another message before ours was answered.
      if (have > size) return refused('bad-client-hello', 'A ClientHello is followed by another message.', at + 5);
      return new Uint8Array(message);
    }
    if (length === undefined || body.length < length) {
      return { type: 'incomplete' };
    }
    at += 5 + length;
  }
}

function messageFault(message: Uint8Array, offset: number): Refusal | undefined {
  if (message[0] !== undefined && message[0] !== CLIENT_HELLO)
    return refused('bad-client-hello', 'The handshake does not begin with a ClientHello.', offset);
  if (message.length < 4) return undefined;
  const size = 4 + ((message[1]! << 16) | (message[2]! << 8) | message[3]!);
  return size > MAX_MESSAGE ? refused('bad-client-hello', 'A ClientHello is too long.', offset + 1) : undefined;
}

function parseMessage(message: Uint8Array): ClientHello | Refusal {
  const reader = new ByteReader(message);
  reader.bytes(4 + 2 + 32);
  const session = reader.vector(1);
  const suites = reader.vector(2);
  const compression = reader.vector(1);
  if (
    compression === undefined ||
    session === undefined ||
    session.length > 32 ||
    suites === undefined ||
    suites.length % 2 !== 0
  ) {
    return refused('bad-client-hello', 'A ClientHello has lengths that do not add up.', reader.offset);
  }
  // TLS 1.0 to 1.2 let extensions be left out; then there is no server name.
  if (reader.atEnd) return { type: 'hello', serverName: null, protocols: [], encryptedClientHello: false };
  const extensions = reader.vector(2);
  if (extensions === undefined || !reader.atEnd) {
    return refused('bad-client-hello', 'A ClientHello has lengths that do not add up.', reader.offset);
  }
  return parseExtensions(extensions, message.length - extensions.length);
}

function parseExtensions(extensions: Uint8Array, base: number): ClientHello | Refusal {
  const reader = new ByteReader(extensions);
  const seen = new Map<number, Uint8Array>();
  while (!reader.atEnd) {
    const at = base + reader.offset;
    const type = reader.number(2);
    const data = reader.vector(2);
    if (type === undefined || data === undefined)
      return refused('bad-client-hello', 'An extension of a ClientHello ends early.', at);
    if (seen.has(type)) return refused('bad-client-hello', 'A ClientHello has an extension twice.', at);
    seen.set(type, data);
  }
  const name = seen.get(SERVER_NAME);
  const serverName = name === undefined ? null : parseServerName(name);
  if (serverName === undefined)
    return refused('bad-client-hello', 'A ClientHello has not exactly one plain server name.', base);
  const alpn = seen.get(ALPN);
  const protocols = alpn === undefined ? [] : parseProtocols(alpn);
  if (protocols === undefined)
    return refused('bad-client-hello', 'A ClientHello has a broken list of protocols.', base);
  return { type: 'hello', serverName, protocols, encryptedClientHello: seen.has(ENCRYPTED_CLIENT_HELLO) };
}

/** RFC 6066, 3: a list of one host name of ASCII characters. */
function parseServerName(data: Uint8Array): string | undefined {
  const outer = new ByteReader(data);
  const list = outer.vector(2);
  if (list === undefined || !outer.atEnd) return undefined;
  const inner = new ByteReader(list);
  const type = inner.number(1);
  const name = inner.vector(2);
  if (type !== 0 || name === undefined || name.length === 0 || !inner.atEnd) return undefined;
  return name.every((byte) => byte > 0x20 && byte < 0x7f) ? String.fromCharCode(...name.subarray(0, 2048)) : undefined;
}

function parseProtocols(data: Uint8Array): string[] | undefined {
  const outer = new ByteReader(data);
  const list = outer.vector(2);
  if (list === undefined || list.length === 0 || !outer.atEnd) return undefined;
  const inner = new ByteReader(list);
  const protocols: string[] = [];
  while (!inner.atEnd) {
    const name = inner.vector(1);
    if (name === undefined || name.length === 0) return undefined;
    protocols.push(Buffer.from(name).toString('latin1'));
  }
  return protocols;
}
