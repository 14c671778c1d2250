import type { Field } from '../net/http-fields.ts';
import type { RequestHead } from '../net/http-head.ts';
import type { Judgement } from '../net/judge.ts';
import { fieldLines, relayBody } from './body.ts';
import { streamOf, type Client } from './client.ts';
import type { FenceRefusal } from './gate.ts';
import { readHead } from './head-buffer.ts';
import { endToEnd, parseResponseHead, type ResponseHead } from './response-head.ts';
import { splice } from './splice.ts';
import { ConnectionFault, writeTo } from './stream-reader.ts';
import { dial, type Upstream } from './upstream.ts';

type Allowed = Extract<Judgement, { readonly allow: true }>;

/** The connection to a server that a client's requests follow each other on. */
export interface Held {
  upstream: Upstream;
  readonly key: string;
  usedAt: number;
}

export interface Exchange {
  readonly client: Client;
  readonly head: RequestHead;
  readonly judgement: Allowed;
  readonly secure: boolean;
  /** Where the next request on this client's connection finds what this one dialled. */
  readonly held: { current: Held | undefined };
}

export interface ExchangeEnd {
  readonly status: number;
  readonly address: string | undefined;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Whether another request may follow on the client's connection. */
  readonly keepAlive: boolean;
}

/** Responses before the final one; a server that sends more is not answering. */
const MOST_INTERIM = 32;
/** How long a request's body may go on after its response has ended. */
const UPLOAD_LINGER_MS = 5000;
/** A connection that rested longer may be closed just now by the server: a body is not risked on it. */
const REST_FOR_BODY_MS = 1000;

/**
 * Passes one request on and its response back, bodies as they come. A refusal is given when nothing of a response was passed on yet.
 * @throws ConnectionFault when a connection broke after that: the client's must be closed.
 */
export async function exchange(what: Exchange): Promise<ExchangeEnd | FenceRefusal> {
  const { head, held, judgement, secure } = what;
  const key = `${secure ? 'https' : 'http'}://${judgement.host}:${judgement.port}/${judgement.addresses.join()}`;
  const rested = held.current;
  held.current = undefined;
  if (rested !== undefined) {
    const fresh = head.body.type === 'none' || Date.now() - rested.usedAt < REST_FOR_BODY_MS;
    if (rested.key === key && !rested.upstream.reader.unusable && !rested.upstream.stream.destroyed && fresh) {
      const outcome = await attempt(what, rested.upstream, key);
      // The server may have closed it while the request was on its way. Only what has no effect twice is sent again.
      if (outcome !== 'closed') return outcome;
      if (!['GET', 'HEAD', 'OPTIONS'].includes(head.method) || head.body.type !== 'none')
        return invalid('closed the connection without a response', judgement);
    } else {
      rested.upstream.stream.destroy();
    }
  }
  const upstream = await dial(what.client.gate, {
    host: judgement.host,
    port: judgement.port,
    addresses: judgement.addresses,
    preferred: what.client.destination,
    secure,
  });
  if ('allow' in upstream) return upstream;
  const outcome = await attempt(what, upstream, key);
  return outcome === 'closed' ? invalid('closed the connection without a response', judgement) : outcome;
}

function invalid(how: string, { host }: Allowed): FenceRefusal {
  return { allow: false, rule: 'upstream-invalid', reason: `${host} ${how}.` };
}

/** Counts of one exchange; also those of the fence as they grow. */
class Tally {
  readonly #client: Client;
  sent = 0;
  received = 0;
  constructor(client: Client) {
    this.#client = client;
  }
  readonly onSent = (count: number) => {
    this.sent += count;
    this.#client.gate.counters.sentBytes += count;
  };
  readonly onReceived = (count: number) => {
    this.received += count;
    this.#client.gate.counters.receivedBytes += count;
  };
}

async function attempt(
  what: Exchange,
  upstream: Upstream,
  key: string,
): Promise<ExchangeEnd | FenceRefusal | 'closed'> {
  const { client, head, judgement } = what;
  const { limits } = client.gate;
  const tally = new Tally(client);
  // A client that goes away takes its request along.
  const onClientClose = () => upstream.stream.destroy();
  streamOf(client).once('close', onClientClose);
  let keep = false;
  try {
    const upload = new Upload(what, upstream, tally);
    let response: ResponseHead | string | undefined;
    try {
      response = await finalResponse(what, upstream);
    } catch (error) {
      if (!(error instanceof ConnectionFault)) throw error;
      if (upload.fault !== undefined) throw upload.fault;
      if (error.kind === 'slow' || error.kind === 'idle') {
        return { allow: false, rule: 'upstream-timeout', reason: `${judgement.host} did not answer in time.` };
      }
      if (streamOf(client).destroyed) throw error;
      return error.kind === 'invalid' ? invalid('sent a head that is too long', judgement) : 'closed';
    }
    if (response === undefined) return upload.fault === undefined ? 'closed' : Promise.reject(upload.fault);
    if (typeof response === 'string') return invalid(`sent a response that is not HTTP/1.1: ${response}`, judgement);
    const ended = { status: response.status, address: upstream.address };
    if (response.status === 101) {
      await switchProtocols(what, upstream, response, tally);
      return { ...ended, sentBytes: tally.sent, receivedBytes: tally.received, keepAlive: false };
    }
    const clientKeeps =
      head.keepAlive &&
      response.body.type !== 'until-close' &&
      (head.version === '1.1' || response.body.type !== 'chunked');
    await writeTo(streamOf(client), responseLines(response, head, clientKeeps), limits.idleTimeMs);
    await relayBody({
      from: upstream.reader,
      to: streamOf(client),
      framing: response.body,
      chunksOut: head.version === '1.1',
      idleTimeMs: limits.idleTimeMs,
      onBytes: tally.onReceived,
    });
    const uploaded = await upload.endsWithin(UPLOAD_LINGER_MS);
    keep = uploaded && response.keepAlive && !upstream.reader.unusable;
    return { ...ended, sentBytes: tally.sent, receivedBytes: tally.received, keepAlive: uploaded && clientKeeps };
  } finally {
    streamOf(client).off('close', onClientClose);
    if (keep) what.held.current = { upstream, key, usedAt: Date.now() };
    else upstream.stream.destroy();
  }
}

/** The request on its way up, while the response may come already. */
class Upload {
  fault: ConnectionFault | undefined;
  readonly #ended: Promise<boolean>;

  constructor(what: Exchange, upstream: Upstream, tally: Tally) {
    this.#ended = this.#run(what, upstream, tally);
  }

  async #run({ client, head, judgement, secure }: Exchange, upstream: Upstream, tally: Tally): Promise<boolean> {
    const { idleTimeMs } = client.gate.limits;
    try {
      await writeTo(upstream.stream, requestLines(head, judgement, secure), idleTimeMs);
      await relayBody({
        from: client.reader,
        to: upstream.stream,
        framing: head.body,
        chunksOut: true,
        idleTimeMs,
        onBytes: tally.onSent,
      });
      return true;
    } catch (error) {
      if (!(error instanceof ConnectionFault)) throw error;
      // A server that takes no more may have answered why. A client that sends no more, or nonsense, ends the exchange.
      if (error.kind !== 'broken' || error.stream === streamOf(client)) {
        this.fault = error;
        upstream.stream.destroy();
      }
      return false;
    }
  }

  async endsWithin(milliseconds: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, milliseconds, false);
    });
    try {
      return await Promise.race([this.#ended, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The first response that is not interim (RFC 9110, 15.2); interim ones are passed on as they come. */
async function finalResponse(
  { client, head }: Exchange,
  { reader }: Upstream,
): Promise<ResponseHead | string | undefined> {
  const { limits } = client.gate;
  const times = { firstByteMs: limits.responseTimeMs, headMs: limits.responseTimeMs };
  for (let count = 0; count < MOST_INTERIM; count++) {
    const read = await readHead(reader, times, limits.headBytes, (bytes) => {
      const parsed = parseResponseHead(bytes, head.method);
      return typeof parsed === 'string' ? { fault: parsed, headBytes: bytes.length } : parsed;
    });
    if (read === undefined) return undefined;
    if ('fault' in read) return read.fault;
    if (read.status === 101) {
      return head.upgrade.includes('websocket') ? read : 'it switches to a protocol that was not asked for';
    }
    if (read.status >= 200) return read;
    if (head.version === '1.1') {
      const lines = `HTTP/1.1 ${read.status} ${read.phrase}\r\n${fieldLines(endToEnd(read.headers))}\r\n`;
      await writeTo(streamOf(client), lines, limits.idleTimeMs);
    }
  }
  return 'it has too many interim responses';
}

/** The request as the server gets it: in origin form, with one Host, and without what was for this hop. */
export function requestLines(head: RequestHead, { host, port }: Allowed, secure: boolean): string {
  const path = head.target.form === 'authority' ? '/' : head.target.path;
  const bracketed = host.includes(':') ? `[${host}]` : host;
  const usual = port === (secure ? 443 : 80);
  const fields: Field[] = [['host', usual ? bracketed : `${bracketed}:${port}`]];
  for (const field of head.headers) {
    const [name] = field;
    if (name !== 'host' && name !== 'content-length' && !head.hopByHop.has(name)) fields.push(field);
  }
  if (head.body.type === 'length') fields.push(['content-length', String(head.body.bytes)]);
  else if (head.body.type === 'chunked') fields.push(['transfer-encoding', 'chunked']);
  else if (head.headers.some(([name]) => name === 'content-length')) fields.push(['content-length', '0']);
  if (head.headers.some(([name, value]) => name === 'te' && /\btrailers\b/i.test(value)))
    fields.push(['te', 'trailers'], ['connection', 'te']);
  else if (head.upgrade.includes('websocket')) fields.push(['connection', 'upgrade'], ['upgrade', 'websocket']);
  return `${head.method} ${path} HTTP/1.1\r\n${fieldLines(fields)}\r\n`;
}

function responseLines(response: ResponseHead, head: RequestHead, keepAlive: boolean): string {
  const { status, phrase, body } = response;
  let framing = '';
  if (body.type === 'length') framing = `content-length: ${body.bytes}\r\n`;
  else if (body.type === 'chunked' && head.version === '1.1') framing = 'transfer-encoding: chunked\r\n';
  else if (body.type === 'none') {
    // Of an answer to HEAD and of 304 the length tells of the body that is not there.
    const told = response.headers.find(([name]) => name === 'content-length')?.[1];
    if (told !== undefined && status !== 204) framing = `content-length: ${told}\r\n`;
  }
  const connection = keepAlive ? (head.version === '1.0' ? 'connection: keep-alive\r\n' : '') : 'connection: close\r\n';
  return `HTTP/1.1 ${status} ${phrase}\r\n${fieldLines(endToEnd(response.headers))}${framing}${connection}\r\n`;
}

async function switchProtocols(
  { client }: Exchange,
  upstream: Upstream,
  response: ResponseHead,
  tally: Tally,
): Promise<void> {
  const { idleTimeMs } = client.gate.limits;
  const lines = `HTTP/1.1 101 ${response.phrase}\r\n${fieldLines(endToEnd(response.headers))}connection: upgrade\r\nupgrade: websocket\r\n\r\n`;
  await writeTo(streamOf(client), lines, idleTimeMs);
  await splice(client.reader, upstream.reader, idleTimeMs, (sent, received) => {
    tally.onSent(sent);
    tally.onReceived(received);
  });
}
