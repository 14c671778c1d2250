import type { Incomplete } from './client-hello.ts';
import { elementsOf, isToken, parseFields, valuesOf, type Field } from './http-fields.ts';
import { parseRequestTarget, type RequestTarget } from './http-target.ts';
import { refused, type Refusal } from './refusal.ts';

/** Where the body ends. */
export type BodyFraming =
  | { readonly type: 'none' }
  | { readonly type: 'length'; readonly bytes: number }
  | { readonly type: 'chunked' };

export interface RequestHead {
  readonly type: 'head';
  readonly method: string;
  readonly target: RequestTarget;
  readonly version: '1.0' | '1.1';
  /** Names in lower case, in the order they came, with the hop-by-hop ones. */
  readonly headers: readonly Field[];
  /** Value of the Host header; undefined only in HTTP/1.0. */
  readonly host: string | undefined;
  readonly body: BodyFraming;
  /** Whether the client keeps the connection open after the answer. */
  readonly keepAlive: boolean;
  /** Header names that are for the next hop only and must not be passed on (RFC 9110, 7.6.1). */
  readonly hopByHop: ReadonlySet<string>;
  /** Protocols of an Upgrade that Connection announces, in lower case. */
  readonly upgrade: readonly string[];
  readonly expectsContinue: boolean;
  /** Bytes of the head with its empty line; the body begins here. */
  readonly headBytes: number;
}

export interface HeadLimits {
  /** Bytes of the head; default 65,536. */
  readonly headBytes?: number | undefined;
  /** Bytes of the request line; default 16,384. */
  readonly lineBytes?: number | undefined;
}

const MAX_HEAD_BYTES = 65_536;
const MAX_LINE_BYTES = 16_384;
const MAX_METHOD = 32;
const HTTP2_PREFACE = 'PRI * HTTP/2.0\r\n';
/** What a client may not have taken away on the way by naming it in Connection. */
const NOT_HOP_BY_HOP: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'transfer-encoding',
  'authorization',
  'cookie',
  'content-type',
  'cache-control',
]);
const ALWAYS_HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
];

/**
 * Reads the head of an HTTP/1 request from the first bytes of a connection (RFC 9112), without consuming them. Stricter than the standard
 * asks wherever two programs could see two requests: bare CR or LF, folded lines, blanks before a colon, two Content-Length (even equal ones), Content-Length
 * beside Transfer-Encoding, any Transfer-Encoding but `chunked` alone, none or two Host headers are refused. After a refusal the connection must be closed.
 */
export function parseRequestHead(bytes: Uint8Array, limits: HeadLimits = {}): RequestHead | Incomplete | Refusal {
  const { headBytes: most = MAX_HEAD_BYTES, lineBytes = MAX_LINE_BYTES } = limits;
  const window = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, most));
  const preface = window.toString('latin1', 0, HTTP2_PREFACE.length);
  if (preface === HTTP2_PREFACE) return refused('http2', 'HTTP/2 is not spoken here; use HTTP/1.1.', 0);
  const lineEnd = window.indexOf('\n');
  if ((lineEnd < 0 ? window.length : lineEnd) > lineBytes)
    return refused('head-too-large', 'The request line is too long.', lineBytes);
  const firstFault = firstByteFault(window);
  if (firstFault !== undefined) return firstFault;
  const end = window.indexOf('\r\n\r\n');
  const scanned = end < 0 ? window.length : end + 4;
  const bare = bareLineEnd(window, scanned);
  if (bare !== undefined) return refused('bad-request', 'A line does not end in CR LF.', bare);
  if (end < 0) {
    if (bytes.length >= most) return refused('head-too-large', `The head is longer than ${most} bytes.`, most);
    return { type: 'incomplete' };
  }
  const [line = '', ...lines] = window.toString('latin1', 0, end).split('\r\n');
  return parseLines(line, lines, scanned);
}

function parseLines(line: string, lines: readonly string[], headBytes: number): RequestHead | Refusal {
  const [method, targetText, protocol, extra] = line.split(' ');
  if (
    method === undefined ||
    targetText === undefined ||
    protocol === undefined ||
    extra !== undefined ||
    !isToken(method) ||
    method.length > MAX_METHOD
  ) {
    return refused('bad-request', 'The request line is not METHOD TARGET HTTP/1.1.', 0);
  }
  if (/^HTTP\/[2-9]/.test(protocol)) return refused('http2', 'HTTP/1.1 is spoken here.', line.length - protocol.length);
  if (protocol !== 'HTTP/1.1' && protocol !== 'HTTP/1.0') {
    return refused('bad-request', 'The request line is not METHOD TARGET HTTP/1.1.', line.length - protocol.length);
  }
  const target = parseRequestTarget(method, targetText);
  if (target.type === 'refused') return { ...target, offset: method.length + 1 };
  const headers = parseFields(lines, line.length + 2);
  if ('type' in headers) return headers;
  const version = protocol === 'HTTP/1.1' ? '1.1' : '1.0';
  const hosts = valuesOf(headers, 'host');
  if (hosts.length > 1 || (hosts.length === 0 && version === '1.1'))
    return refused('bad-request', 'There is not exactly one Host header.', 0);
  const body = framingOf(headers, version, method);
  if (body.type === 'refused') return body;
  const connection = elementsOf(headers, 'connection');
  const stolen = connection.find((name) => NOT_HOP_BY_HOP.has(name));
  if (stolen !== undefined) return refused('bad-request', `Connection names ${stolen}, which is not for one hop.`, 0);
  const expect = valuesOf(headers, 'expect');
  if (expect.some((value) => value.toLowerCase() !== '100-continue'))
    return refused('bad-request', 'Expect asks for something else than 100-continue.', 0);
  return {
    type: 'head',
    method,
    target,
    version,
    headers,
    host: hosts[0],
    body,
    keepAlive:
      version === '1.1'
        ? !connection.includes('close')
        : connection.includes('keep-alive') && !connection.includes('close'),
    hopByHop: new Set([...ALWAYS_HOP_BY_HOP, ...connection]),
    upgrade: connection.includes('upgrade') ? elementsOf(headers, 'upgrade') : [],
    expectsContinue: version === '1.1' && expect.length > 0,
    headBytes,
  };
}

/** RFC 9112, 6.3, without its room for interpretation. */
function framingOf(headers: readonly Field[], version: '1.0' | '1.1', method: string): BodyFraming | Refusal {
  const lengths = valuesOf(headers, 'content-length');
  const codings = valuesOf(headers, 'transfer-encoding');
  if (codings.length > 0) {
    if (lengths.length > 0) return refused('bad-framing', 'There are both Content-Length and Transfer-Encoding.', 0);
    if (version === '1.0') return refused('bad-framing', 'HTTP/1.0 has no Transfer-Encoding.', 0);
    if (codings.length > 1 || codings[0]?.toLowerCase() !== 'chunked')
      return refused('bad-framing', 'Transfer-Encoding is something else than chunked.', 0);
    return method === 'CONNECT' ? refused('bad-framing', 'CONNECT has a body.', 0) : { type: 'chunked' };
  }
  const [length] = lengths;
  if (length === undefined) return { type: 'none' };
  if (lengths.length > 1) return refused('bad-framing', 'There is more than one Content-Length.', 0);
  if (!/^(?:0|[1-9][0-9]{0,14})$/.test(length))
    return refused('bad-framing', 'Content-Length is not one plain number.', 0);
  if (length !== '0' && method === 'CONNECT') return refused('bad-framing', 'CONNECT has a body.', 0);
  return length === '0' ? { type: 'none' } : { type: 'length', bytes: Number(length) };
}

/** What cannot begin a request is refused before its line has ended: TLS, another protocol, an empty line. */
function firstByteFault(window: Buffer): Refusal | undefined {
  const [first] = window;
  return first === undefined || isToken(String.fromCharCode(first))
    ? undefined
    : refused('bad-request', 'This is not an HTTP request.', 0);
}

/** Offset of the first CR without LF or LF without CR; a CR at the end may still get its LF. */
function bareLineEnd(window: Buffer, end: number): number | undefined {
  for (let at = window.indexOf(10); at >= 0 && at < end; at = window.indexOf(10, at + 1))
    if (window[at - 1] !== 13) return at;
  for (let at = window.indexOf(13); at >= 0 && at + 1 < end; at = window.indexOf(13, at + 1))
    if (window[at + 1] !== 10) return at;
  return undefined;
}
