import type { Inode } from './inventory.ts';
import type { ByteString, Xattr } from './tree.ts';
import { encodeXattrEntry, type Refuse } from './xattr-area.ts';

/** Extended attributes that several inodes have, stored once. */
export interface SharedXattrs {
  /** All entries back to back, in byte order of names and values. */
  readonly area: Uint8Array;
  /** Position in the area, in units of 4 bytes; undefined for an attribute that is not shared. */
  find(xattr: Xattr): number | undefined;
}

const REFERENCE_BYTES = 4;

/**
 * Chooses what is shared: whatever takes fewer bytes once, with a reference in each inode, than behind each inode.
 * The choice and the order depend on the attributes alone.
 */
export function planSharedXattrs(inodes: readonly Inode[], refuseFor: (inode: Inode) => Refuse): SharedXattrs {
  const uses = new Map<ByteString, { readonly bytes: Uint8Array; count: number }>();
  for (const inode of inodes) {
    for (const xattr of inode.node.meta.xattrs) {
      const key = keyOf(xattr);
      const known = uses.get(key);
      if (known === undefined) uses.set(key, { bytes: encodeXattrEntry(xattr, refuseFor(inode)), count: 1 });
      else known.count++;
    }
  }
  const positions = new Map<ByteString, number>();
  const parts: Uint8Array[] = [];
  let lengthBytes = 0;
  for (const [key, { bytes, count }] of [...uses].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (count * bytes.length <= bytes.length + count * REFERENCE_BYTES) continue;
    positions.set(key, lengthBytes / REFERENCE_BYTES);
    parts.push(bytes);
    lengthBytes += bytes.length;
  }
  return {
    area: Buffer.concat(parts),
    find: (xattr) => (positions.size === 0 ? undefined : positions.get(keyOf(xattr))),
  };
}

function keyOf({ name, value }: Xattr): ByteString {
  return `${name}\0${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1')}`;
}
