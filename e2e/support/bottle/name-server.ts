import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';

import { decode, encode, streamDecode, streamEncode, type Answer, type Packet } from 'dns-packet';

/** Records of names; what is not here does not exist. */
export type Zone = Readonly<Record<string, ZoneEntry>>;

export interface ZoneEntry {
  readonly A?: readonly string[] | (() => readonly string[]);
  readonly AAAA?: readonly string[];
  /** Its addresses are then those of this other name. */
  readonly CNAME?: string;
  readonly ttl?: number;
}

/** A name server on port 53 of an address, by UDP and TCP, that notes every name it is asked for. Returns what closes it. */
export async function serveNames(address: string, zone: Zone, asked: string[]): Promise<() => void> {
  const udp = createSocket('udp4');
  udp.on('message', (message, peer) => {
    const reply = answerTo(zone, decode(message), asked);
    udp.send(encode(reply), peer.port, peer.address);
  });
  udp.bind(53, address);
  const tcp = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (bytes: Buffer) => socket.write(streamEncode(answerTo(zone, streamDecode(bytes), asked))));
  });
  tcp.listen(53, address);
  await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
  return () => {
    udp.close();
    tcp.close();
  };
}

function answerTo(zone: Zone, { id, questions = [] }: Packet, asked: string[]): Packet {
  const [question] = questions;
  const name = question?.name.toLowerCase() ?? '';
  asked.push(name);
  const entry = zone[name];
  const base = { type: 'response', id: id ?? 0, questions } as const;
  if (entry === undefined || question === undefined) return { ...base, flags: 0x8183 };
  const { ttl = 60 } = entry;
  const answers: Answer[] = [];
  if (entry.CNAME !== undefined) answers.push({ type: 'CNAME', name, ttl, data: entry.CNAME });
  const owner = entry.CNAME ?? name;
  const data = question.type === 'A' ? entry.A : question.type === 'AAAA' ? entry.AAAA : undefined;
  const addresses = typeof data === 'function' ? data() : (data ?? []);
  for (const address of addresses) answers.push({ type: question.type as 'A', name: owner, ttl, data: address });
  return { ...base, flags: 0x8180, answers };
}
