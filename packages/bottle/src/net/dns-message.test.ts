import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';

import { decode, encode, type OptAnswer, type Packet } from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { encodeDnsAnswer, encodeDnsRefusal, parseDnsQuery, type DnsQuery } from './dns-message.ts';

const query = (packet: Partial<Packet> & { readonly name?: string; readonly kind?: string } = {}) =>
  encode({
    type: 'query',
    id: 7,
    flags: 0x0100,
    questions: [{ type: (packet.kind ?? 'A') as 'A', class: 'IN', name: packet.name ?? 'Allowed.test' }],
    ...packet,
  });
function parsed(bytes: Uint8Array): DnsQuery {
  const read = parseDnsQuery(bytes);
  if (read.type !== 'query') throw new Error(read.reason);
  return read;
}
const opt: OptAnswer = {
  type: 'OPT',
  name: '.',
  udpPayloadSize: 4096,
  flags: 0,
  options: [],
  extendedRcode: 0,
  ednsVersion: 0,
  flag_do: false,
};
const header = (...words: readonly number[]) => Buffer.from([7, ...words].flatMap((word) => [word >> 8, word & 0xff]));
const question = Buffer.from('\x01a\x04test\0\0\x01\0\x01', 'latin1');

describe('a DNS question', () => {
  it('of another encoder is read', () => {
    expect(parsed(query())).toMatchObject({
      id: 7,
      name: 'Allowed.test',
      questionType: 'A',
      recursionDesired: true,
      udpBytes: 512,
      edns: false,
    });
    expect(parsed(query({ kind: 'UNKNOWN_65', additionals: [opt] }))).toMatchObject({
      questionType: 'HTTPS',
      udpBytes: 4096,
      edns: true,
    });
    expect(parsed(query({ name: '.' })).name).toBe('');
    for (const kind of ['AAAA', 'TXT', 'MX', 'NULL', 'SRV', 'CNAME', 'SOA', 'PTR', 'NS'])
      expect(parsed(query({ kind })).questionType).toBe(kind);
  });

  it.each<[string, Uint8Array, string | undefined]>([
    ['shorter than its header', Buffer.alloc(11), undefined],
    ['an answer', Buffer.concat([header(0x8100, 1, 0, 0, 0), question]), undefined],
    ['another operation', Buffer.concat([header(0x2800, 1, 0, 0, 0), question]), 'NOTIMP'],
    ['of no question', header(0x0100, 0, 0, 0, 0), 'FORMERR'],
    ['of two questions', Buffer.concat([header(0x0100, 2, 0, 0, 0), question, question]), 'FORMERR'],
    ['with an answer', Buffer.concat([header(0x0100, 1, 1, 0, 0), question]), 'FORMERR'],
    ['with two more records', Buffer.concat([header(0x0100, 1, 0, 0, 2), question]), 'FORMERR'],
    ['with bytes behind it', Buffer.concat([header(0x0100, 1, 0, 0, 0), question, Buffer.of(0)]), 'FORMERR'],
    ['that ends in its name', Buffer.concat([header(0x0100, 1, 0, 0, 0), question.subarray(0, 4)]), 'FORMERR'],
    ['that ends behind its name', Buffer.concat([header(0x0100, 1, 0, 0, 0), question.subarray(0, 9)]), 'FORMERR'],
    ['of class CHAOS', Buffer.concat([header(0x0100, 1, 0, 0, 0), question.subarray(0, -1), Buffer.of(3)]), 'NOTIMP'],
    [
      'with a pointer to itself',
      Buffer.concat([header(0x0100, 1, 0, 0, 0), Buffer.of(0xc0, 12, 0, 1, 0, 1)]),
      'FORMERR',
    ],
    [
      'with a dot in a label',
      Buffer.concat([header(0x0100, 1, 0, 0, 0), Buffer.from('\x03a.b\0\0\x01\0\x01', 'latin1')]),
      'FORMERR',
    ],
    [
      'with a NUL in a label',
      Buffer.concat([header(0x0100, 1, 0, 0, 0), Buffer.from('\x03a\0b\0\0\x01\0\x01', 'latin1')]),
      'FORMERR',
    ],
    [
      'with a name of 256 bytes',
      Buffer.concat([
        header(0x0100, 1, 0, 0, 0),
        ...Array.from({ length: 4 }, () => Buffer.from(`\x3f${'a'.repeat(63)}`)),
        Buffer.of(0, 0, 1, 0, 1),
      ]),
      'FORMERR',
    ],
    [
      'with an OPT record that ends early',
      Buffer.concat([header(0x0100, 1, 0, 0, 1), question, Buffer.of(0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 9)]),
      'FORMERR',
    ],
    [
      'with another record',
      Buffer.concat([header(0x0100, 1, 0, 0, 1), question, Buffer.of(0, 0, 16, 16, 0, 0, 0, 0, 0, 0, 0)]),
      'FORMERR',
    ],
    [
      'of 5,000 bytes',
      Buffer.concat([
        header(0x0100, 1, 0, 0, 1),
        question,
        Buffer.of(0, 0, 41, 16, 0, 0, 0, 0, 0, 0x13, 0x60),
        Buffer.alloc(4960),
      ]),
      'FORMERR',
    ],
  ])('%s is refused', (_, bytes, rcode) => {
    const read = parseDnsQuery(bytes);
    if (read.type !== 'refused') throw new Error('was taken');
    expect(read.rule).toBe('bad-dns');
    const answer = encodeDnsRefusal(read);
    expect(answer === undefined ? undefined : (decode(Buffer.from(answer)) as unknown as { rcode: string }).rcode).toBe(
      rcode,
    );
  });

  it('of any bytes is read as another decoder reads it, or refused', () => {
    const start = Buffer.from(query({ additionals: [opt] }));
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(start.length - 1), fc.nat(255)), { maxLength: 3 }), (changes) => {
        const bytes = Buffer.from(start);
        for (const [at, byte] of changes) bytes[at] = byte;
        const read = parseDnsQuery(bytes);
        if (read.type !== 'query') return;
        const other = decode(bytes);
        expect(other.questions).toHaveLength(1);
        expect(other.questions?.[0]?.name).toBe(read.name === '' ? '.' : read.name);
        expect(other.id).toBe(read.id);
      }),
      { numRuns: 1000 },
    );
  });
});

describe('a DNS answer', () => {
  const addresses = ['203.0.113.5', '203.0.113.6', '2001:db8::5'];
  it('has the addresses of the question, and nothing for other questions', () => {
    const answers = (kind: string) =>
      decode(Buffer.from(encodeDnsAnswer(parsed(query({ kind })), { rcode: 'NOERROR', addresses, ttl: 9 }, 'udp')));
    expect(answers('A')).toMatchObject({
      id: 7,
      rcode: 'NOERROR',
      flag_rd: true,
      flag_ra: true,
      flag_tc: false,
      questions: [{ name: 'Allowed.test' }],
    });
    expect(answers('A').answers).toMatchObject([
      { name: 'Allowed.test', ttl: 9, data: '203.0.113.5' },
      { data: '203.0.113.6' },
    ]);
    expect(answers('AAAA').answers).toMatchObject([{ type: 'AAAA', data: '2001:db8::5' }]);
    for (const kind of ['TXT', 'UNKNOWN_65', 'MX'])
      expect(answers(kind)).toMatchObject({ rcode: 'NOERROR', answers: [] });
  });

  it('that is too long for UDP is cut and says so', () => {
    const many = Array.from({ length: 200 }, (_, i) => `203.0.113.${i}`);
    const asked = parsed(query({ additionals: [opt] }));
    const udp = encodeDnsAnswer(asked, { rcode: 'NOERROR', addresses: many }, 'udp');
    expect(udp.length).toBeLessThan(1232);
    expect(decode(Buffer.from(udp))).toMatchObject({ flag_tc: true, answers: [] });
    expect(
      decode(Buffer.from(encodeDnsAnswer(asked, { rcode: 'NOERROR', addresses: many }, 'tcp'))).answers,
    ).toHaveLength(200);
    expect(
      decode(Buffer.from(encodeDnsAnswer(parsed(query()), { rcode: 'NOERROR', addresses: many.slice(0, 40) }, 'udp'))),
    ).toMatchObject({ flag_tc: true });
  });

  it('satisfies a real resolver', async () => {
    const socket = createSocket('udp4');
    socket.on('message', (message, peer) => {
      const read = parseDnsQuery(message);
      if (read.type !== 'query') return;
      const known = read.name.toLowerCase() === 'allowed.test';
      socket.send(
        encodeDnsAnswer(read, known ? { rcode: 'NOERROR', addresses } : { rcode: 'NXDOMAIN' }, 'udp'),
        peer.port,
        peer.address,
      );
    });
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
    const resolver = new Resolver({ timeout: 20_000, tries: 1 });
    resolver.setServers([`127.0.0.1:${socket.address().port}`]);
    expect(await resolver.resolve4('allowed.test')).toEqual(addresses.slice(0, 2));
    expect(await resolver.resolve6('allowed.test')).toEqual(['2001:db8::5']);
    await expect(resolver.resolve4('denied.test')).rejects.toMatchObject({ code: 'ENOTFOUND' });
    await expect(resolver.resolveTxt('allowed.test')).rejects.toMatchObject({ code: 'ENODATA' });
    socket.close();
  });
});
