import type { Socket as DatagramSocket } from 'node:dgram';
import type { Socket } from 'node:net';

import { encodeDnsAnswer, encodeDnsRefusal, parseDnsQuery, type DnsQuery } from '../net/dns-message.ts';
import { verdict } from '../net/verdict.ts';
import { decide, type Gate } from './gate.ts';
import { ConnectionFault, StreamReader, writeTo } from './stream-reader.ts';

/** Questions that wait for an answer at one time; more get none over UDP and wait over TCP. */
const MOST_AT_ONCE = 256;
/** From one question to the end of the next. */
const TCP_IDLE_MS = 10_000;
/** Seconds for which an answer may be kept: short against the pins, so that an address is a pin while it is used. */
const ANSWER_TTL = 30;

/** Answers questions that come on an open UDP socket. Only names that a route allows are ever looked up. */
export function serveDnsUdp(gate: Gate, socket: DatagramSocket): void {
  let open = 0;
  socket.on('message', (packet, from) => {
    if (open >= MOST_AT_ONCE) return;
    open++;
    void answerOf(gate, packet, 'udp')
      .then((answer) => {
        if (answer !== undefined) socket.send(answer, from.port, from.address, () => undefined);
      })
      .finally(() => open--);
  });
  // A client that has gone answers with "port unreachable", which is of no concern.
  socket.on('error', () => undefined);
}

/** The same over TCP, with a length before each message (RFC 7766). Never rejects for what a client does. */
export async function serveDnsTcp(gate: Gate, socket: Socket): Promise<void> {
  const reader = new StreamReader(socket);
  let bytes = Buffer.alloc(0);
  try {
    for (;;) {
      const deadline = Date.now() + TCP_IDLE_MS;
      while (bytes.length < 2 || bytes.length < 2 + bytes.readUInt16BE(0)) {
        const piece = await reader.read(Math.max(1, deadline - Date.now()));
        if (piece === undefined) return;
        bytes = Buffer.concat([bytes, piece]);
      }
      const end = 2 + bytes.readUInt16BE(0);
      const answer = await answerOf(gate, bytes.subarray(2, end), 'tcp');
      bytes = Buffer.from(bytes.subarray(end));
      if (answer === undefined) return;
      const length = Buffer.alloc(2);
      length.writeUInt16BE(answer.length);
      await writeTo(socket, Buffer.concat([length, answer]), TCP_IDLE_MS);
    }
  } catch (error) {
    if (!(error instanceof ConnectionFault)) throw error;
  } finally {
    socket.destroy();
  }
}

/** The answer to one packet; undefined when it gets none. */
export async function answerOf(gate: Gate, packet: Uint8Array, over: 'udp' | 'tcp'): Promise<Uint8Array | undefined> {
  const { counters, recorder } = gate;
  counters.dnsQueries++;
  const query = parseDnsQuery(packet);
  if (query.type === 'refused') {
    counters.deniedDnsQueries++;
    recorder.record({
      type: 'dns',
      decision: 'deny',
      rule: query.rule,
      transport: 'dns',
      port: 53,
      reason: query.reason,
    });
    return encodeDnsRefusal(query);
  }
  const facts = {
    type: 'dns',
    transport: 'dns',
    host: query.name,
    port: 53,
    questionType: query.questionType,
  } as const;
  const judged = await judgeQuestion(gate, query);
  if (judged.allow) {
    recorder.record({ ...facts, decision: 'allow', rule: judged.rule });
    return encodeDnsAnswer(query, { rcode: 'NOERROR', addresses: judged.addresses, ttl: ANSWER_TTL }, over);
  }
  counters.deniedDnsQueries++;
  recorder.record({ ...facts, decision: 'deny', rule: judged.rule, reason: judged.reason });
  return encodeDnsAnswer(query, { rcode: judged.rule === 'audit-backlog' ? 'SERVFAIL' : 'NXDOMAIN' }, over);
}

type Judged =
  | { readonly allow: true; readonly rule: string; readonly addresses: readonly string[] }
  | { readonly allow: false; readonly rule: string; readonly reason: string };

async function judgeQuestion(gate: Gate, { name, questionType }: DnsQuery): Promise<Judged> {
  const request = { transport: 'dns', port: 53, host: name, questionType } as const;
  if (questionType === 'A' || questionType === 'AAAA') {
    const judged = await decide(gate, request);
    return judged.allow ? { allow: true, rule: judged.route.id, addresses: judged.addresses } : judged;
  }
  // Of a name that exists nothing else is told, and nothing is asked for it.
  const first = verdict(gate.policy, request, gate.resolver);
  if (first.allow === false) return first;
  return { allow: true, rule: first.allow === true ? first.route.id : 'dns-type', addresses: [] };
}
