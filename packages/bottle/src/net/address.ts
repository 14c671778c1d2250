/** An IP address with its one canonical text: dotted quad, or RFC 5952. IPv4-mapped IPv6 addresses are the IPv4 ones they dial. */
export interface Address {
  readonly family: 4 | 6;
  /** 4 or 16 bytes in network order. */
  readonly bytes: Uint8Array;
  readonly text: string;
}

/** The longest text of an address: 45 characters (INET6_ADDRSTRLEN without its NUL). */
const MAX_TEXT = 45;

/**
 * Reads an address in a plain form: four decimal numbers without leading zeros, or any IPv6 form of RFC 4291 without brackets and
 * without a zone. The older forms of inet_aton (`127.1`, `0x7f000001`, `0177.0.0.1`) are none; see `readsAsLegacyAddress`.
 */
export function parseAddress(text: string): Address | undefined {
  if (text.length > MAX_TEXT) return undefined;
  if (!text.includes(':')) {
    const bytes = parseQuad(text);
    return bytes && { family: 4, bytes, text };
  }
  const bytes = parseIpv6(text);
  return bytes && addressOfBytes(bytes);
}

/** The address of 4 or 16 bytes. */
export function addressOfBytes(bytes: Uint8Array): Address {
  if (bytes.length === 4) return { family: 4, bytes, text: bytes.join('.') };
  if (bytes.length !== 16) throw new RangeError(`an address has 4 or 16 bytes, not ${bytes.length}`);
  if (isMapped(bytes)) return addressOfBytes(bytes.slice(12));
  return { family: 6, bytes, text: formatIpv6(bytes) };
}

/** The canonical text of an address, or undefined when it is none in a plain form. */
export function canonicalAddress(text: string): string | undefined {
  return parseAddress(text)?.text;
}

/**
 * Whether a host would be taken for an IPv4 address by inet_aton, by a browser (the last label is a number: WHATWG URL, "ends in a
 * number"), or by both, without being a plain dotted quad. Such a host is never a name.
 */
export function readsAsLegacyAddress(host: string): boolean {
  const plain = host.endsWith('.') ? host.slice(0, -1) : host;
  const last = plain.slice(plain.lastIndexOf('.') + 1);
  return /^(?:[0-9]+|0[xX][0-9a-fA-F]*)$/.test(last) && parseQuad(plain) === undefined;
}

function parseQuad(text: string): Uint8Array | undefined {
  if (!/^(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})$/.test(text)) return undefined;
  const parts = text.split('.').map(Number);
  return parts.every((part) => part <= 255) ? Uint8Array.from(parts) : undefined;
}

function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half, i) => groupsOf(half, i === halves.length - 1));
  if (head === undefined) return undefined;
  if (halves.length === 1) return head.length === 16 ? Uint8Array.from(head) : undefined;
  // `::` stands for one group at least.
  if (tail === undefined || head.length + tail.length > 14) return undefined;
  const bytes = new Uint8Array(16);
  bytes.set(head);
  bytes.set(tail, 16 - tail.length);
  return bytes;
}

/** Bytes of groups between colons; the last one may be a dotted quad. */
function groupsOf(text: string, last: boolean): number[] | undefined {
  if (text === '') return [];
  const bytes: number[] = [];
  const groups = text.split(':');
  for (const [i, group] of groups.entries()) {
    if (last && i === groups.length - 1 && group.includes('.')) {
      const quad = parseQuad(group);
      if (quad === undefined) return undefined;
      bytes.push(...quad);
    } else if (/^[0-9a-fA-F]{1,4}$/.test(group)) {
      const value = parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
    } else return undefined;
  }
  return bytes;
}

function isMapped(bytes: Uint8Array): boolean {
  return bytes[10] === 0xff && bytes[11] === 0xff && bytes.subarray(0, 10).every((byte) => byte === 0);
}

/** RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups (the first of equals) as `::`. */
function formatIpv6(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i]! << 8) | bytes[2 * i + 1]!);
  let longest = { start: 0, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > longest.length) longest = { start, length };
    start += length;
  }
  const hex = groups.map((group) => group.toString(16));
  if (longest.length < 2) return hex.join(':');
  return `${hex.slice(0, longest.start).join(':')}::${hex.slice(longest.start + longest.length).join(':')}`;
}
