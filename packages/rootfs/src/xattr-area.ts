import { XATTR_ENTRY_BYTES, XATTR_HEADER_BYTES, XATTR_PREFIXES, XATTR_WHOLE_NAMES } from './erofs-format.ts';
import type { Xattr } from './tree.ts';

/** Most 4-byte units a u16 can count, after the header's one. */
const MOST_BYTES = XATTR_HEADER_BYTES + (0xffff - 1) * 4;

/** Makes the error for what the format cannot express. */
export type Refuse = (what: string) => Error;

/** What is stored once for several inodes, as far as one of them needs to know. */
export interface XattrSharing {
  /** Reference to the shared entry; undefined for an attribute of this inode's own. */
  find(xattr: Xattr): number | undefined;
}

/** Most references of one inode: their number is one byte. */
const MOST_SHARED = 255;

/** One for all inodes without attributes: an empty array of bytes takes some 200. */
const NOTHING = new Uint8Array(0);

/** The extended attributes of one inode as EROFS keeps them behind it; empty when there are none. */
export function encodeXattrs(xattrs: readonly Xattr[], sharing: XattrSharing, refuse: Refuse): Uint8Array {
  if (xattrs.length === 0) return NOTHING;
  const references: number[] = [];
  const entries: Uint8Array[] = [];
  for (const xattr of [...xattrs].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const reference = references.length < MOST_SHARED ? sharing.find(xattr) : undefined;
    if (reference === undefined) entries.push(encodeXattrEntry(xattr, refuse));
    else references.push(reference);
  }
  const head = Buffer.alloc(XATTR_HEADER_BYTES + 4 * references.length);
  head[4] = references.length;
  for (const [i, reference] of references.entries()) head.writeUInt32LE(reference, XATTR_HEADER_BYTES + 4 * i);
  const area = Buffer.concat([head, ...entries]);
  if (area.length > MOST_BYTES) throw refuse('has more extended attributes than an inode can hold');
  return area;
}

/** One attribute as it lies behind an inode or among the shared ones, padded to 4 bytes. */
export function encodeXattrEntry({ name, value }: Xattr, refuse: Refuse): Uint8Array {
  const { index, suffix } = splitName(name, refuse);
  if (value.length > 0xffff) throw refuse(`has an extended attribute of ${value.length} bytes, over 65,535`);
  const entry = Buffer.alloc(pad(XATTR_ENTRY_BYTES + suffix.length + value.length));
  entry[0] = suffix.length;
  entry[1] = index;
  entry.writeUInt16LE(value.length, 2);
  entry.write(suffix, XATTR_ENTRY_BYTES, 'latin1');
  entry.set(value, XATTR_ENTRY_BYTES + suffix.length);
  return entry;
}

function splitName(name: string, refuse: Refuse): { index: number; suffix: string } {
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
