import { parseAddress } from './address.ts';
import { refused, type Refusal } from './refusal.ts';

/** One question of class IN, as a client sent it. */
export interface DnsQuery {
  readonly type: 'query';
  readonly id: number;
  /** As written, labels joined by dots, without the last dot; to be judged by `canonicalHost`. Empty for the root. */
  readonly name: string;
  /** `A`, `AAAA`, `TXT`, …, or `TYPE65280`. */
  readonly questionType: string;
  /** The question's own bytes, which the answer repeats, so that the letters' case comes back. */
  readonly question: Uint8Array;
  readonly recursionDesired: boolean;
  /** Largest answer over UDP that the client takes, bytes: 512 without EDNS. */
  readonly udpBytes: number;
  readonly edns: boolean;
}

/** A packet that is no question to answer. With an `id` it gets FORMERR or NOTIMP (`rcode`), without one nothing. */
export interface DnsRefusal extends Refusal {
  readonly id?: number | undefined;
  readonly rcode: DnsRcode;
}

export type DnsRcode = 'NOERROR' | 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED';

const RCODES: Readonly<Record<DnsRcode, number>> = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
};
const TYPES: ReadonlyMap<number, string> = new Map([
  ...([
    [1, 'A'],
    [2, 'NS'],
    [5, 'CNAME'],
    [6, 'SOA'],
    [10, 'NULL'],
    [12, 'PTR'],
    [15, 'MX'],
    [16, 'TXT'],
  ] as const),
  ...([
    [28, 'AAAA'],
    [33, 'SRV'],
    [35, 'NAPTR'],
    [64, 'SVCB'],
    [65, 'HTTPS'],
    [251, 'IXFR'],
    [252, 'AXFR'],
    [255, 'ANY'],
  ] as const),
]);
const OPT = 41;
const HEADER = 12;
/** A question and an OPT record with its options fit many times. */
export const MAX_DNS_QUERY_BYTES = 4096;
/** Most bytes of an answer over UDP, so that it is not cut on its way; and of one over TCP. */
const MAX_UDP_BYTES = 1232;
const MAX_TCP_BYTES = 65_535;

/**
 * Reads a query (RFC 1035, 4.1; RFC 6891): one question, no answers, and at most one OPT record beside it. Names may not be compressed in a
 * query of one question, so no pointer is followed. Takes no more than the packet's own size.
 */
export function parseDnsQuery(packet: Uint8Array): DnsQuery | DnsRefusal {
  if (packet.length < HEADER)
    return { ...refused('bad-dns', 'A DNS packet is shorter than its header.', packet.length), rcode: 'FORMERR' };
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const id = view.getUint16(0);
  const flags = view.getUint16(2);
  // An answer gets no answer: two responders would never stop.
  if ((flags & 0x8000) !== 0)
    return { ...refused('bad-dns', 'A DNS packet is an answer, not a question.', 2), rcode: 'FORMERR' };
  const fail = (reason: string, offset: number, rcode: DnsRcode = 'FORMERR'): DnsRefusal => ({
    ...refused('bad-dns', reason, offset),
    id,
    rcode,
  });
  if (packet.length > MAX_DNS_QUERY_BYTES) return fail('A DNS question is too long.', MAX_DNS_QUERY_BYTES);
  if ((flags & 0x7800) !== 0) return fail('A DNS packet asks for another operation than a query.', 2, 'NOTIMP');
  const [questions, answers, authorities, additional] = [4, 6, 8, 10].map((at) => view.getUint16(at));
  if (questions !== 1) return fail('A DNS packet has not exactly one question.', 4);
  if (answers !== 0 || authorities !== 0) return fail('A DNS question carries answers.', 6);
  if (additional === undefined || additional > 1) return fail('A DNS question carries more than an OPT record.', 10);
  const name = readName(packet, HEADER);
  if (typeof name === 'string') return fail(name, HEADER);
  if (name.end + 4 > packet.length) return fail('A DNS question ends early.', name.end);
  if (view.getUint16(name.end + 2) !== 1)
    return fail('A DNS question is of another class than IN.', name.end + 2, 'NOTIMP');
  const number = view.getUint16(name.end);
  const end = name.end + 4;
  const udpBytes = additional === 1 ? readOpt(view, end) : end === packet.length ? 512 : undefined;
  if (udpBytes === undefined) return fail('A DNS question is followed by something else than an OPT record.', end);
  return {
    type: 'query',
    id,
    name: name.text,
    questionType: TYPES.get(number) ?? `TYPE${number}`,
    question: packet.slice(HEADER, end),
    recursionDesired: (flags & 0x0100) !== 0,
    udpBytes,
    edns: additional === 1,
  };
}

/** What is answered: addresses for `A` and `AAAA`, nothing for what else exists. */
export interface DnsAnswer {
  readonly rcode: DnsRcode;
  /** Canonical; those that are not of the question's family are left out. */
  readonly addresses?: readonly string[] | undefined;
  /** Seconds; default 30. */
  readonly ttl?: number | undefined;
}

/** The answer to a query. One that is too long for UDP has no records and says so (TC), so that the client comes by TCP. */
export function encodeDnsAnswer(query: DnsQuery, answer: DnsAnswer, over: 'udp' | 'tcp'): Uint8Array {
  const family = query.questionType === 'A' ? 4 : query.questionType === 'AAAA' ? 6 : undefined;
  const records = (answer.addresses ?? []).flatMap((text) => {
    const address = parseAddress(text);
    return address !== undefined && address.family === family ? [record(address.bytes, answer.ttl ?? 30)] : [];
  });
  const opt = query.edns
    ? Uint8Array.of(0, 0, OPT, MAX_UDP_BYTES >> 8, MAX_UDP_BYTES & 0xff, 0, 0, 0, 0, 0, 0)
    : new Uint8Array(0);
  const fixed = HEADER + query.question.length + opt.length;
  const room = over === 'tcp' ? MAX_TCP_BYTES : Math.min(Math.max(512, query.udpBytes), MAX_UDP_BYTES);
  const size = records.reduce((sum, item) => sum + item.length, 0);
  const cut = fixed + size > room;
  const kept = cut ? [] : records;
  const header = new Uint8Array(HEADER);
  const view = new DataView(header.buffer);
  view.setUint16(0, query.id);
  // QR, RA, and what the client set of RD; AA is not ours to claim.
  view.setUint16(2, 0x8080 | (cut ? 0x0200 : 0) | (query.recursionDesired ? 0x0100 : 0) | RCODES[answer.rcode]);
  view.setUint16(4, 1);
  view.setUint16(6, kept.length);
  view.setUint16(10, query.edns ? 1 : 0);
  return Buffer.concat([header, query.question, ...kept, opt]);
}

/** The answer to a packet that is no question; undefined when it gets none. */
export function encodeDnsRefusal({ id, rcode }: DnsRefusal): Uint8Array | undefined {
  if (id === undefined) return undefined;
  const header = new Uint8Array(HEADER);
  const view = new DataView(header.buffer);
  view.setUint16(0, id);
  view.setUint16(2, 0x8080 | RCODES[rcode]);
  return header;
}

/** Address record that points to the question's name (always at the same place). */
function record(address: Uint8Array, ttl: number): Uint8Array {
  const bytes = new Uint8Array(12 + address.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0xc000 | HEADER);
  view.setUint16(2, address.length === 4 ? 1 : 28);
  view.setUint16(4, 1);
  view.setUint32(6, ttl);
  view.setUint16(10, address.length);
  bytes.set(address, 12);
  return bytes;
}

/** A name and the offset behind it, or what is wrong with it. */
function readName(packet: Uint8Array, start: number): { readonly text: string; readonly end: number } | string {
  const labels: string[] = [];
  for (let at = start; ;) {
    const length = packet[at];
    if (length === undefined) return 'A DNS name ends early.';
    if (length > 63) return 'A DNS name is compressed or has a label of another kind.';
    if (length === 0) return { text: labels.join('.'), end: at + 1 };
    const label = packet.subarray(at + 1, at + 1 + length);
    if (label.length < length) return 'A DNS name ends early.';
    at += 1 + length;
    if (at - start > 254) return 'A DNS name is longer than 255 bytes.';
    // A dot within a label would be read as two labels from here on.
    if (label.some((byte) => byte < 0x21 || byte > 0x7e || byte === 0x2e || byte === 0x5c)) {
      return 'A DNS name has a label with a dot, blank or byte that is no character.';
    }
    labels.push(String.fromCharCode(...label));
  }
}

/** The UDP size of an OPT record that ends the packet. */
function readOpt(view: DataView, start: number): number | undefined {
  if (start + 11 > view.byteLength || view.getUint8(start) !== 0 || view.getUint16(start + 1) !== OPT) return undefined;
  return start + 11 + view.getUint16(start + 9) === view.byteLength ? view.getUint16(start + 3) : undefined;
}
