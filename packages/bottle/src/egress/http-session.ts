import { parseRequestHead, type RequestHead } from '../net/http-head.ts';
import type { RuleId } from '../net/refusal.ts';
import { eventOf, hostOfAuthority, requestOf, streamOf, type Client } from './client.ts';
import { exchange, type Held } from './exchange.ts';
import { decide, type FenceRule } from './gate.ts';
import { readHead } from './head-buffer.ts';
import { http2Refusal, refusalResponse, statusOf } from './http-refusal.ts';
import { closeGently, ConnectionFault, writeTo } from './stream-reader.ts';

export interface HttpSession {
  /** Whether the client speaks TLS to us, so that the server is spoken to in TLS too. */
  readonly secure: boolean;
  /** What the connection was refused for already; it is said in answer to the first request. */
  readonly refusal?: { readonly rule: RuleId | FenceRule; readonly reason: string } | undefined;
  /** Takes a CONNECT over; left out where there is none. Gives false when the session goes on. */
  readonly onConnect?: ((head: RequestHead) => Promise<boolean>) | undefined;
}

interface RefusedHead {
  readonly type: 'refused';
  readonly rule: RuleId | FenceRule;
  readonly reason: string;
}

/** Answers the requests of one connection, each judged on its own, until it ends; then closes it. @throws ConnectionFault */
export async function serveHttp(client: Client, session: HttpSession): Promise<void> {
  const { gate } = client;
  const held: { current: Held | undefined } = { current: undefined };
  try {
    for (let count = 1; count <= gate.limits.requestsPerConnection; count++) {
      const head = await nextHead(client, count === 1);
      if (head === undefined) break;
      if (head.type === 'refused') {
        await refuseHead(client, head, session);
        break;
      }
      if (head.method === 'CONNECT' && session.onConnect !== undefined) {
        if (await session.onConnect(head)) return;
        if (!head.keepAlive) break;
        continue;
      }
      if (!(await serveRequest(client, session, head, held))) break;
    }
    await closeGently(client.reader);
  } finally {
    held.current?.upstream.stream.destroy();
  }
}

async function nextHead(client: Client, first: boolean): Promise<RequestHead | RefusedHead | undefined> {
  const { limits } = client.gate;
  const times = { firstByteMs: first ? limits.headTimeMs : limits.keepAliveMs, headMs: limits.headTimeMs };
  try {
    return await readHead(client.reader, times, limits.headBytes, (bytes) => {
      const head = parseRequestHead(bytes, { headBytes: limits.headBytes });
      if (head.type !== 'incomplete') return head;
      return isOtherProtocol(bytes) ? NOT_HTTP : undefined;
    });
  } catch (error) {
    if (!(error instanceof ConnectionFault) || error.kind === 'broken') throw error;
    // A connection may rest and end; a head that does not come to its end is told about.
    if (error.kind === 'idle') return undefined;
    return { type: 'refused', rule: 'slow-client', reason: 'The head of the request did not come in time.' };
  }
}

const NOT_HTTP = { type: 'refused', rule: 'bad-request', reason: 'This is not an HTTP request.' } as const;

/** Whether the first line is there and is none of HTTP: who speaks something else would wait for an answer before sending more. */
function isOtherProtocol(bytes: Buffer): boolean {
  const end = bytes.indexOf(10);
  return end >= 0 && !/^[^ ]+ [^ ]+ HTTP\/[0-9.]+\r?$/.test(bytes.toString('latin1', 0, end));
}

async function refuseHead(client: Client, refusal: RefusedHead, session: HttpSession): Promise<void> {
  const { gate } = client;
  gate.counters.deniedRequests++;
  gate.recorder.record({
    ...eventOf(client),
    type: 'request',
    decision: 'deny',
    rule: refusal.rule,
    status: statusOf(refusal.rule),
    reason: refusal.reason,
  });
  const answer =
    refusal.rule === 'http2' && session.refusal === undefined
      ? http2Refusal()
      : refusalResponse(session.refusal ?? refusal, { keepAlive: false, withBody: true });
  await writeTo(streamOf(client), answer, gate.limits.headTimeMs);
}

/** Gives whether another request may follow. */
async function serveRequest(
  client: Client,
  session: HttpSession,
  head: RequestHead,
  held: { current: Held | undefined },
): Promise<boolean> {
  const { gate } = client;
  const started = performance.now();
  const asked = askedBy(client, head, session);
  const judged = 'rule' in asked ? { allow: false as const, ...asked } : await decide(gate, asked.request);
  const facts = {
    ...eventOf(client),
    host: 'rule' in asked ? eventOf(client).host : asked.host,
    method: head.method,
    path: pathOf(head),
  } as const;
  if (!judged.allow) {
    gate.counters.deniedRequests++;
    const status = statusOf(judged.rule);
    gate.recorder.record({
      ...facts,
      type: 'request',
      decision: 'deny',
      rule: judged.rule,
      status,
      reason: judged.reason,
    });
    return await answerRefusal(client, head, judged);
  }
  gate.counters.allowedRequests++;
  gate.recorder.record({ ...facts, host: judged.host, type: 'request', decision: 'allow', rule: judged.route.id });
  const ended = { ...facts, host: judged.host, type: 'end', rule: judged.route.id } as const;
  const elapsed = () => Math.round((performance.now() - started) * 10) / 10;
  try {
    const outcome = await exchange({ client, head, judgement: judged, secure: session.secure, held });
    if ('allow' in outcome) {
      const { rule, reason } = outcome;
      gate.recorder.record({ ...ended, decision: 'info', rule, reason, status: statusOf(rule), durationMs: elapsed() });
      return await answerRefusal(client, head, outcome);
    }
    const { status, address, sentBytes, receivedBytes } = outcome;
    gate.recorder.record({
      ...ended,
      decision: 'info',
      status,
      address,
      sentBytes,
      receivedBytes,
      durationMs: elapsed(),
    });
    return outcome.keepAlive;
  } catch (error) {
    if (!(error instanceof ConnectionFault)) throw error;
    if (error.kind !== 'invalid' || error.stream !== streamOf(client)) {
      const reason = `Cut short: ${error.message}.`;
      gate.recorder.record({ ...ended, decision: 'info', reason, durationMs: elapsed() });
      throw error;
    }
    // A body that is malformed: nothing was answered yet, or the answer goes on and is cut.
    const refusal = { rule: 'bad-framing', reason: error.message } as const;
    gate.counters.deniedRequests++;
    const status = statusOf(refusal.rule);
    gate.recorder.record({ ...ended, ...refusal, decision: 'deny', status, durationMs: elapsed() });
    await answerRefusal(client, head, refusal);
    return false;
  }
}

/** What the verdict is asked, or why there is nothing to ask. */
function askedBy(client: Client, head: RequestHead, session: HttpSession) {
  if (session.refusal !== undefined) return session.refusal;
  const { target } = head;
  if (target.form === 'authority') return { rule: 'bad-request', reason: 'CONNECT is for the proxy alone.' } as const;
  const absolute = target.form === 'absolute' ? target : undefined;
  if (client.transport === 'proxy' && absolute === undefined) {
    return { rule: 'bad-request', reason: 'A proxy is asked with an absolute URI or CONNECT.' } as const;
  }
  if (absolute !== undefined && (absolute.scheme === 'https') !== session.secure) {
    return {
      rule: 'plain-http',
      reason: `An ${absolute.scheme} URI does not belong on this connection; use CONNECT.`,
    } as const;
  }
  const port = client.transport === 'proxy' ? (absolute?.authority.port ?? 80) : client.port;
  // An absolute URI in a tunnel or on a caught connection names the host once more, and must agree too.
  const authority = absolute === undefined ? client.authority : authorityText(absolute.authority);
  const disagree =
    absolute !== undefined &&
    client.authority !== undefined &&
    hostOfAuthority(client.authority) !== absolute.authority.host.text;
  if (disagree)
    return { rule: 'name-mismatch', reason: 'The URI of the request names another host than CONNECT.' } as const;
  const request = requestOf(client, {
    port,
    ...(authority === undefined ? {} : { authority }),
    ...(head.host === undefined ? {} : { host: head.host }),
    request: { method: head.method, target: target.path, headers: head.headers },
  });
  return { request, host: absolute?.authority.host.text ?? head.host ?? eventOf(client).host };
}

function authorityText({
  hostText: text,
  port,
}: {
  readonly hostText: string;
  readonly port: number | undefined;
}): string {
  return port === undefined ? text : `${text}:${port}`;
}

function pathOf({ target }: RequestHead): string | undefined {
  return target.form === 'authority' ? undefined : target.path.replace(/[?#].*$/s, '');
}

/** Gives whether another request may follow: only when no body of this one is still to come. */
async function answerRefusal(
  client: Client,
  head: RequestHead,
  refusal: { readonly rule: RuleId | FenceRule; readonly reason: string },
): Promise<boolean> {
  const keepAlive = head.keepAlive && head.body.type === 'none';
  const answer = refusalResponse(refusal, { keepAlive, withBody: head.method !== 'HEAD' });
  await writeTo(streamOf(client), answer, client.gate.limits.headTimeMs);
  return keepAlive;
}
