import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';

import { decode, encode, streamDecode, streamEncode, type Answer, type Packet } from 'dns-packet';

/** Records of names; what is not here does not exist. */
export type Zone = Readonly<Record<string, ZoneEntry>>;

export interface ZoneEntry {
  readonly A?: readonly string[];
  readonly AAAA?: readonly string[];
  /** Its addresses are then those of this other name. */
  readonly CNAME?: string;
  readonly ttl?: number;
}

export interface Names {
  readonly zone: Zone;
  /** Names that have this address at their first question, and the loopback address after that. */
  readonly rebinding: RegExp;
  readonly address: string;
}

/** A name server on port 53 of an address, by UDP and TCP, that notes every name it is asked for. Returns what closes it. */
export async function serveNames(address: string, known: Names, asked: string[]): Promise<() => void> {
  const udp = createSocket('udp4');
  const answered = new Map<string, Buffer>();
  udp.on('message', (message, peer) => {
    // A resolver that was kept waiting sends the same question again: that is one question.
    const key = message.toString('latin1');
    const reply = answered.get(key) ?? encode(answerTo(known, decode(message), asked));
    answered.set(key, reply);
    udp.send(reply, peer.port, peer.address);
  });
  udp.bind(53, address);
  const tcp = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (bytes: Buffer) => socket.write(streamEncode(answerTo(known, streamDecode(bytes), asked))));
  });
  tcp.listen(53, address);
  await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
  return () => {
    udp.close();
    tcp.close();
  };
}

function answerTo({ zone, rebinding, address }: Names, { id, questions = [] }: Packet, asked: string[]): Packet {
  const [question] = questions;
  const name = question?.name.toLowerCase() ?? '';
  const earlier = asked.filter((other) => other === name).length;
  asked.push(name);
  // The first two questions are those of one lookup, for A and AAAA.
  const entry = rebinding.test(name) ? { A: [earlier < 2 ? address : '127.0.0.1'], ttl: 0 } : zone[name];
  const base = { type: 'response', id: id ?? 0, questions } as const;
  if (entry === undefined || question === undefined) return { ...base, flags: 0x8183 };
  const { ttl = 60, A, AAAA, CNAME }: ZoneEntry = entry;
  const answers: Answer[] = [];
  if (CNAME !== undefined) answers.push({ type: 'CNAME', name, ttl, data: CNAME });
  const owner = CNAME ?? name;
  const addresses = (question.type === 'A' ? A : question.type === 'AAAA' ? AAAA : undefined) ?? [];
  for (const data of addresses) answers.push({ type: question.type as 'A', name: owner, ttl, data });
  return { ...base, flags: 0x8180, answers };
}
