import { XATTR_ENTRY_BYTES, XATTR_HEADER_BYTES, XATTR_PREFIXES, XATTR_WHOLE_NAMES } from './erofs-format.ts';
import type { Xattr } from './tree.ts';

/** Most 4-byte units a u16 can count, after the header's one. */
const MOST_BYTES = XATTR_HEADER_BYTES + (0xffff - 1) * 4;

/**
 * The extended attributes of one inode as EROFS keeps them behind it; empty when there are none.
 * `refuse` makes the error for what the format cannot express.
 */
export function encodeXattrs(xattrs: readonly Xattr[], refuse: (what: string) => Error): Uint8Array {
  if (xattrs.length === 0) return new Uint8Array(0);
  const sorted = [...xattrs].sort((a, b) => (a.name < b.name ? -1 : 1));
  const entries = sorted.map(({ name, value }) => ({ name: splitName(name, refuse), value }));
  let lengthBytes = XATTR_HEADER_BYTES;
  for (const {
    name: { suffix },
    value,
  } of entries) {
    if (value.length > 0xffff) throw refuse(`has an extended attribute of ${value.length} bytes, over 65,535`);
    lengthBytes += pad(XATTR_ENTRY_BYTES + suffix.length + value.length);
  }
  if (lengthBytes > MOST_BYTES) throw refuse('has more extended attributes than an inode can hold');
  const area = Buffer.alloc(lengthBytes);
  let at = XATTR_HEADER_BYTES;
  for (const {
    name: { index, suffix },
    value,
  } of entries) {
    area[at] = suffix.length;
    area[at + 1] = index;
    area.writeUInt16LE(value.length, at + 2);
    area.write(suffix, at + XATTR_ENTRY_BYTES, 'latin1');
    area.set(value, at + XATTR_ENTRY_BYTES + suffix.length);
    at += pad(XATTR_ENTRY_BYTES + suffix.length + value.length);
  }
  return area;
}

function splitName(name: string, refuse: (what: string) => Error): { index: number; suffix: string } {
  for (const [index, prefix] of XATTR_PREFIXES) {
    if (XATTR_WHOLE_NAMES.has(index)) {
      if (name === prefix) return { index, suffix: '' };
    } else if (name.startsWith(prefix) && name.length > prefix.length) {
      const suffix = name.slice(prefix.length);
      if (name.length > 255 || suffix.includes('\0')) break;
      return { index, suffix };
    }
  }
  throw refuse(`has an extended attribute with the unsupported name ${JSON.stringify(name.slice(0, 80))}`);
}

function pad(lengthBytes: number): number {
  return (lengthBytes + 3) & ~3;
}

/** One inline or shared entry, decoded. `lengthBytes` is what it takes with its padding. */
export interface DecodedXattr {
  readonly xattr: Xattr;
  readonly lengthBytes: number;
}

/** Decodes the entry at `at`; a string says what is wrong with it. */
export function decodeXattr(area: Uint8Array, at: number): DecodedXattr | string {
  if (at + XATTR_ENTRY_BYTES > area.length) return 'an extended attribute runs over the end of its area';
  const nameLength = area[at]!;
  const index = area[at + 1]!;
  const valueLength = area[at + 2]! | (area[at + 3]! << 8);
  const lengthBytes = pad(XATTR_ENTRY_BYTES + nameLength + valueLength);
  if (at + lengthBytes > area.length) return 'an extended attribute runs over the end of its area';
  const prefix = XATTR_PREFIXES.get(index);
  if (prefix === undefined) return `an extended attribute has the unknown prefix ${index}`;
  if ((nameLength === 0) !== XATTR_WHOLE_NAMES.has(index)) return 'an extended attribute has an impossible name';
  const start = at + XATTR_ENTRY_BYTES;
  const suffix = Buffer.from(area.subarray(start, start + nameLength)).toString('latin1');
  const value = area.slice(start + nameLength, start + nameLength + valueLength);
  if (suffix.includes('\0')) return 'an extended attribute has a NUL in its name';
  return { xattr: { name: prefix + suffix, value }, lengthBytes };
}
