import { addressOfBytes, parseAddress, type Address } from './address.ts';
import { cidrHas, parseCidr, type Cidr } from './cidr.ts';

/** `public` may be reached by a route, `private` by a route that lists the range, the others never. */
export type AddressClass =
  | 'public'
  | 'private'
  | 'metadata'
  | 'loopback'
  | 'unspecified'
  | 'link-local'
  | 'multicast'
  | 'broadcast'
  | 'reserved';

/**
 * Ranges by the IANA special-purpose registries, more special ones first. The ranges for documentation (192.0.2.0/24, 198.51.100.0/24,
 * 203.0.113.0/24, 2001:db8::/32) belong to nobody, so they are like any other address of the internet.
 */
const TABLE: readonly (readonly [AddressClass, readonly string[]])[] = [
  [
    'metadata',
    [
      ...['169.254.169.254', '169.254.170.2', '169.254.170.23', 'fd00:ec2::254', 'fd00:ec2::23'], // Amazon; also most others
      ...['100.100.100.200', '168.63.129.16', '192.0.0.192', 'fd20:ce::254'], // Alibaba, Azure, Oracle, Google
    ],
  ],
  ['broadcast', ['255.255.255.255']],
  ['loopback', ['127.0.0.0/8', '::1']],
  ['unspecified', ['0.0.0.0/8', '::']],
  ['link-local', ['169.254.0.0/16', 'fe80::/10']],
  ['multicast', ['224.0.0.0/4', 'ff00::/8']],
  [
    'private',
    [
      ...['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '198.18.0.0/15'],
      ...['fc00::/7', 'fec0::/10'],
    ],
  ],
  ['reserved', ['192.0.0.0/24', '192.88.99.0/24', '240.0.0.0/4', '2001:10::/28', '2001:20::/28', '64:ff9b:1::/48']],
  // What is not yet given out is not of the internet either; NAT64's prefix is judged by the address within it.
  ['public', ['0.0.0.0/0', '2000::/3', '64:ff9b::/96']],
];

const RANGES: readonly (readonly [AddressClass, Cidr])[] = TABLE.flatMap(([name, ranges]) =>
  ranges.map((text) => {
    const range = parseCidr(text);
    if (range === undefined) throw new RangeError(`${text} is no range`);
    return [name, range] as const;
  }),
);

const NAT64 = rangeOf('64:ff9b::/96');
const SIX_TO_FOUR = rangeOf('2002::/16');
const TEREDO = rangeOf('2001::/32');

/**
 * The class of an address. An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4, Teredo, ISATAP) is in the class of the worst
 * address it carries.
 */
export function addressClass(address: Address | string): AddressClass {
  const parsed = typeof address === 'string' ? parseAddress(address) : address;
  if (parsed === undefined) return 'reserved';
  const own = RANGES.find(([, range]) => cidrHas(range, parsed))?.[0] ?? 'reserved';
  if (own !== 'public' || parsed.family === 4) return own;
  for (const inner of carriedBy(parsed)) {
    const carried = addressClass(inner);
    if (carried !== 'public') return carried;
  }
  return own;
}

/** IPv4 addresses that a packet to this address would be sent on to. */
function carriedBy(address: Address): Address[] {
  const { bytes } = address;
  const at = (offset: number, flip = 0) => addressOfBytes(bytes.slice(offset, offset + 4).map((byte) => byte ^ flip));
  const carried: Address[] = [];
  if (cidrHas(NAT64, address)) carried.push(at(12));
  if (cidrHas(SIX_TO_FOUR, address)) carried.push(at(2));
  if (cidrHas(TEREDO, address)) carried.push(at(4), at(12, 0xff));
  // ISATAP (RFC 5214, 6.1): an interface identifier of 00-00-5E-FE or 02-00-5E-FE and the IPv4 address.
  if ((bytes[8]! & 0xfd) === 0 && bytes[9] === 0 && bytes[10] === 0x5e && bytes[11] === 0xfe) carried.push(at(12));
  return carried;
}

function rangeOf(text: string): Cidr {
  const range = parseCidr(text);
  if (range === undefined) throw new RangeError(`${text} is no range`);
  return range;
}
