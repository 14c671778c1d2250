import { isIP } from 'node:net';

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { addressClass } from './address-class.ts';
import { addressOfBytes, canonicalAddress, parseAddress, readsAsLegacyAddress } from './address.ts';
import { cidrHas, parseCidr } from './cidr.ts';

/** Texts that are addresses, nearly addresses, or made of the same characters. */
const nearAddress = fc.oneof(
  fc.ipV4(),
  fc.ipV6(),
  fc.ipV4Extended(),
  fc.string({ unit: fc.constantFrom(...Array.from('0123456789abcfF:.[]%x/ ')), maxLength: 46 }),
  fc
    .array(fc.constantFrom('0', '1', '255', '256', '00', '0a', 'ffff', '10000', ':', '::', '.', ''), { maxLength: 16 })
    .map((a) => a.join('')),
);

describe('addresses', () => {
  it('are read where Node reads one without a zone, and written as the URL standard writes them', () => {
    fc.assert(
      fc.property(nearAddress, (text) => {
        const read = parseAddress(text);
        expect(read !== undefined, text).toBe(isIP(text) !== 0 && !text.includes('%'));
        if (read === undefined) return;
        expect(parseAddress(read.text)).toEqual(read);
        expect(addressOfBytes(read.bytes)).toEqual(read);
        // The standard writes mapped addresses in hexadecimal; here they are the IPv4 addresses that they dial.
        if (read.family === 6) expect(`[${read.text}]`).toBe(new URL(`http://[${text}]/`).hostname);
        else if (isIP(text) === 4) expect(read.text).toBe(new URL(`http://${text}/`).hostname);
      }),
      { numRuns: 1000 },
    );
  });

  it('in IPv4-mapped form are the IPv4 addresses', () => {
    for (const text of ['::ffff:127.0.0.1', '::FFFF:7f00:1', '0:0:0:0:0:ffff:127.0.0.1']) {
      expect(canonicalAddress(text)).toBe('127.0.0.1');
    }
  });

  it.each([
    '127.1',
    '2130706433',
    '0x7f000001',
    '0177.0.0.1',
    '0',
    '0x',
    '1.2.3',
    '1.2.3.4.5',
    'a.0x10',
    '1.2.3.4.example.09',
    '127.0.0.01',
  ])('in the older form %s is known as such', (text) => expect(readsAsLegacyAddress(text)).toBe(true));

  it.each(['example.com', '1.2.3.4', '127.0.0.1.nip.io', '0x7f.example', '1e100.net', 'x.0xg'])(
    '%s is not of the older form',
    (text) => expect(readsAsLegacyAddress(text)).toBe(false),
  );
});

describe('the class of an address', () => {
  const cases: Record<string, readonly string[]> = {
    metadata: [
      '169.254.169.254',
      '169.254.170.2',
      'fd00:ec2::254',
      '169.254.170.23',
      'fd00:ec2::23',
      'fd20:ce::254',
      '192.0.0.192',
      '100.100.100.200',
      '168.63.129.16',
      '::ffff:169.254.169.254',
      '64:ff9b::a9fe:a9fe',
      '2002:a9fe:a9fe::1',
    ],
    loopback: [
      '127.0.0.1',
      '127.255.255.254',
      '::1',
      '::ffff:127.0.0.1',
      '64:ff9b::7f00:1',
      '2002:7f00:1::',
      '2001:0:7f00:1::',
      '2001:0:cb00:7109::80ff:fffe',
      '2001:db8::5efe:127.0.0.1',
      '2001:db8::200:5efe:7f00:1',
    ],
    unspecified: ['0.0.0.0', '0.1.2.3', '::'],
    'link-local': ['169.254.0.1', '169.254.169.253', 'fe80::1', 'febf::1'],
    multicast: ['224.0.0.251', '239.255.255.250', 'ff02::1'],
    broadcast: ['255.255.255.255'],
    private: [
      '10.0.0.1',
      '172.16.0.1',
      '172.31.255.255',
      '192.168.1.1',
      '100.64.0.1',
      '100.127.255.255',
      '198.18.0.1',
      'fd00::1',
      'fc00::1',
      'fec0::1',
      '2002:a00:1::',
      '64:ff9b::10.0.0.1',
    ],
    reserved: [
      '192.0.0.1',
      '240.0.0.1',
      '192.88.99.1',
      '2001:10::1',
      '2001:20::1',
      '4000::1',
      '::2',
      '::7f00:1',
      '100::1',
      '64:ff9b:1::7f00:1',
      '1fff::',
      'nonsense',
      '',
      '127.1',
    ],
    public: [
      '8.8.8.8',
      '203.0.113.9',
      '192.0.2.1',
      '198.51.100.1',
      '2001:db8::1',
      '2606:4700::1111',
      '172.15.255.255',
      '172.32.0.1',
      '100.63.255.255',
      '100.128.0.0',
      '64:ff9b::8.8.8.8',
      '2002:808:808::1',
      '2001:0:808:808::f7f7:f7f7',
      '169.253.255.255',
      '169.255.0.0',
    ],
  };
  for (const [name, addresses] of Object.entries(cases)) {
    it.each(addresses)(`of %s is ${name}`, (address) => expect(addressClass(address)).toBe(name));
  }

  it('is never better in IPv6 than that of the IPv4 address within', () => {
    fc.assert(
      fc.property(fc.ipV4(), (v4) => {
        const hex = v4.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
        const [high, low] = [hex.slice(0, 2).join(''), hex.slice(2).join('')];
        for (const v6 of [
          `::ffff:${v4}`,
          `64:ff9b::${v4}`,
          `2002:${high}:${low}::1`,
          `2001:0:${high}:${low}::f7f7:f7f7`,
        ]) {
          expect(addressClass(v6), v6).toBe(addressClass(v4));
        }
      }),
    );
  });
});

describe('ranges', () => {
  /** The same question by arithmetic on one big number. */
  function inRange(address: string, base: string, prefix: number): boolean {
    const [a, b] = [address, base].map((text) => parseAddress(text)!);
    if (a!.family !== b!.family) return false;
    const [x, y] = [a!, b!].map(({ bytes }) => bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n));
    const shift = BigInt(a!.bytes.length * 8 - prefix);
    return x! >> shift === y! >> shift;
  }

  it('have what shares their first bits', () => {
    const pair = fc.oneof(
      fc.tuple(fc.ipV4(), fc.ipV4(), fc.integer({ min: 0, max: 32 })),
      fc.tuple(fc.ipV6(), fc.ipV6(), fc.integer({ min: 0, max: 128 })),
    );
    fc.assert(
      fc.property(pair, fc.boolean(), ([base, other, prefix], same) => {
        const from = parseAddress(base)!;
        if (parseAddress(other)!.family !== from.family || prefix > from.bytes.length * 8) return;
        const zeroed = from.bytes.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, prefix - 8 * i))));
        const range = parseCidr(`${addressOfBytes(zeroed).text}/${prefix}`);
        if (addressOfBytes(zeroed).family !== from.family) return;
        const address = same ? base : other;
        expect(cidrHas(range!, parseAddress(address)!)).toBe(inRange(address, addressOfBytes(zeroed).text, prefix));
      }),
    );
  });

  it.each([
    '10.0.0.1/8',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.0/',
    '10/8',
    '::1/64',
    'fe80::/129',
    'x/8',
    '10.0.0.0/8/8',
    '10.0.0.0/-1',
  ])('written as %s are refused', (text) => expect(parseCidr(text)).toBeUndefined());
});
