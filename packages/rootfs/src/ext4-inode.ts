import { DecantError } from '@decant/core';

import type { Budget } from './budget.ts';
import { byteStringOf } from './byte-string.ts';
import { kindOfMode, XATTR_PREFIXES, XATTR_WHOLE_NAMES } from './erofs-format.ts';
import type { ImageRange } from './erofs-inode.ts';
import { invalidAt, type MetadataReader } from './metadata-reader.ts';
import type { Metadata, TreeNode, Xattr } from './tree.ts';

/** Where inodes lie, as the superblock says. */
export interface Ext4Layout {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly inodes: number;
  readonly inodesPerGroup: number;
  readonly inodeBytes: number;
  readonly descriptorBytes: number;
  /** Of the table of group descriptors. */
  readonly descriptorsOffset: number;
}

export interface Ext4Budgets {
  readonly xattrBytes: Budget;
  readonly ranges: Budget;
}

export interface Ext4Inode {
  readonly kind: TreeNode['kind'];
  readonly meta: Metadata;
  readonly sizeBytes: number;
  /** Part of what its checksums start from. */
  readonly generation: number;
  readonly ranges: readonly ImageRange[];
  /** The 60 bytes that hold the target of a short link or the numbers of a device. */
  readonly inPlace: Uint8Array;
  readonly offset: number;
}

/** Flags of inodes (EXT4_…_FL). */
const FLAG = { encrypted: 0x800, extents: 0x8_0000, inlineData: 0x1000_0000 } as const;
const EXTENT_MAGIC = 0xf30a;
const XATTR_MAGIC = 0xea02_0000;
const MOST_DEPTH = 5;
/** Longer extents are reserved and not written: they read as zeros. */
const MOST_WRITTEN_BLOCKS = 32_768;
const TWO_32 = 2 ** 32;

export function unsupportedAt(offset: number, what: string): DecantError {
  return new DecantError('ROOTFS_UNSUPPORTED', `The ext4 image has at byte ${offset} what is not read: ${what}.`, {
    details: { offset },
  });
}

/** @throws ROOTFS_INVALID, ROOTFS_UNSUPPORTED, LIMIT_EXCEEDED */
export async function readExt4Inode(
  reader: MetadataReader,
  layout: Ext4Layout,
  budgets: Ext4Budgets,
  number: number,
): Promise<Ext4Inode> {
  const offset = await placeOf(reader, layout, number);
  const bytes = (await reader.read(offset, layout.inodeBytes)).slice();
  const view = new DataView(bytes.buffer);
  const mode = view.getUint16(0, true);
  const kind = kindOfMode(mode);
  if (kind === undefined) throw invalidAt(offset, `the inode ${number} has no known type`);
  const flags = view.getUint32(0x20, true);
  if ((flags & FLAG.encrypted) !== 0) throw unsupportedAt(offset, 'an encrypted file');
  if ((flags & FLAG.inlineData) !== 0) throw unsupportedAt(offset, 'a file inside its inode');
  const high = kind === 'file' || kind === 'directory' ? view.getUint32(0x6c, true) : 0;
  const sizeBytes = high * TWO_32 + view.getUint32(4, true);
  if (!Number.isSafeInteger(sizeBytes)) throw invalidAt(offset, `the size of the inode ${number} is impossible`);
  const extraBytes = layout.inodeBytes > 128 ? view.getUint16(0x80, true) : 0;
  if (128 + extraBytes > layout.inodeBytes) throw invalidAt(offset, `the inode ${number} is longer than inodes are`);
  // The seconds have two more bits beside the nanoseconds.
  const timeExtra = extraBytes >= 12 ? view.getUint32(0x88, true) : 0;
  const nanoseconds = timeExtra >>> 2;
  if (nanoseconds > 999_999_999) throw invalidAt(offset, `the time of the inode ${number} is impossible`);
  const inPlace = bytes.subarray(0x28, 0x28 + 60);
  const hasExtents = (flags & FLAG.extents) !== 0;
  const data = kind === 'file' || kind === 'directory' || kind === 'symlink';
  if (data && !hasExtents && kind !== 'symlink' && inPlace.some((byte) => byte !== 0)) {
    throw unsupportedAt(offset, 'a file in block maps, as ext2 and ext3 write them');
  }
  const ranges: ImageRange[] = [];
  if (data && hasExtents) await readExtents({ reader, layout, budgets, sizeBytes, ranges }, inPlace, offset);
  return {
    kind,
    offset,
    sizeBytes,
    generation: view.getUint32(0x64, true),
    ranges,
    inPlace,
    meta: {
      mode: mode & 0o7777,
      uid: view.getUint16(2, true) + view.getUint16(0x78, true) * 65_536,
      gid: view.getUint16(0x18, true) + view.getUint16(0x7a, true) * 65_536,
      mtimeSeconds: view.getInt32(0x10, true) + (timeExtra & 3) * TWO_32,
      mtimeNanoseconds: nanoseconds,
      xattrs: await readXattrs(reader, layout, budgets, { bytes, view, offset, extraBytes }),
    },
  };
}

async function placeOf(reader: MetadataReader, layout: Ext4Layout, number: number): Promise<number> {
  const { inodesPerGroup, descriptorBytes, descriptorsOffset, inodes, blockBytes, inodeBytes } = layout;
  if (number < 1 || number > inodes) throw invalidAt(descriptorsOffset, `there is no inode ${number}`);
  const group = Math.floor((number - 1) / inodesPerGroup);
  const bytes = await reader.read(descriptorsOffset + group * descriptorBytes, descriptorBytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const high = descriptorBytes >= 64 ? view.getUint32(0x28, true) : 0;
  const table = high * TWO_32 + view.getUint32(8, true);
  return table * blockBytes + ((number - 1) % inodesPerGroup) * inodeBytes;
}

interface ExtentWalk {
  readonly reader: MetadataReader;
  readonly layout: Ext4Layout;
  readonly budgets: Ext4Budgets;
  readonly sizeBytes: number;
  readonly ranges: ImageRange[];
}

/** Reads one node of an extent tree and those below it, in the order of the file. */
async function readExtents(walk: ExtentWalk, node: Uint8Array, offset: number, above = MOST_DEPTH + 1): Promise<void> {
  const { reader, layout, budgets, sizeBytes, ranges } = walk;
  const view = new DataView(node.buffer, node.byteOffset, node.length);
  const count = view.getUint16(2, true);
  const depth = view.getUint16(6, true);
  if (view.getUint16(0, true) !== EXTENT_MAGIC || count * 12 + 12 > node.length || depth >= above) {
    throw invalidAt(offset, 'it is no node of an extent tree');
  }
  for (let at = 12; at < 12 + count * 12; at += 12) {
    budgets.ranges.spend(1);
    if (depth > 0) {
      const block = view.getUint16(at + 8, true) * TWO_32 + view.getUint32(at + 4, true);
      const below = (await reader.read(block * layout.blockBytes, layout.blockBytes)).slice();
      await readExtents(walk, below, block * layout.blockBytes, depth);
      continue;
    }
    const length = view.getUint16(at + 4, true);
    const fileOffset = view.getUint32(at, true) * layout.blockBytes;
    const block = view.getUint16(at + 6, true) * TWO_32 + view.getUint32(at + 8, true);
    const before = ranges.at(-1);
    if (before !== undefined && fileOffset < before.fileOffset + before.lengthBytes) {
      throw invalidAt(offset + at, 'extents of a file overlap or are out of order');
    }
    if (length > MOST_WRITTEN_BLOCKS || fileOffset >= sizeBytes) continue;
    if (length === 0 || block + length > layout.blocks)
      throw invalidAt(offset + at, 'an extent lies outside the image');
    const lengthBytes = Math.min(length * layout.blockBytes, sizeBytes - fileOffset);
    ranges.push({ fileOffset, lengthBytes, imageOffset: block * layout.blockBytes });
  }
}

interface RawInode {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly offset: number;
  readonly extraBytes: number;
}

async function readXattrs(
  reader: MetadataReader,
  { blockBytes, inodeBytes }: Ext4Layout,
  budgets: Ext4Budgets,
  { bytes, view, offset, extraBytes }: RawInode,
): Promise<readonly Xattr[]> {
  const found: Xattr[] = [];
  const inside = 128 + extraBytes;
  if (inside + 4 <= inodeBytes && inodeBytes > 128 && view.getUint32(inside, true) === XATTR_MAGIC) {
    const area = bytes.subarray(inside + 4);
    readEntries(area, 0, offset + inside + 4, budgets, found);
  }
  const block = view.getUint16(0x76, true) * TWO_32 + view.getUint32(0x68, true);
  if (block !== 0) {
    const area = (await reader.read(block * blockBytes, blockBytes)).slice();
    if (new DataView(area.buffer).getUint32(0, true) !== XATTR_MAGIC) {
      throw invalidAt(block * blockBytes, 'it is no block of extended attributes');
    }
    readEntries(area, 32, block * blockBytes, budgets, found);
  }
  found.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const [index, { name }] of found.entries()) {
    if (found[index + 1]?.name === name) throw invalidAt(offset, 'an inode has an extended attribute twice');
  }
  return found;
}

/** Entries from `at` in an area; their values lie in it by their distance from its start. */
function readEntries(area: Uint8Array, at: number, base: number, budgets: Ext4Budgets, found: Xattr[]): void {
  const view = new DataView(area.buffer, area.byteOffset, area.length);
  while (at + 4 <= area.length && view.getUint32(at, true) !== 0) {
    if (at + 16 > area.length) throw invalidAt(base + at, 'an extended attribute is cut off');
    const nameBytes = area[at]!;
    const index = area[at + 1]!;
    const valueAt = view.getUint16(at + 2, true);
    const valueBytes = view.getUint32(at + 8, true);
    if (view.getUint32(at + 4, true) !== 0)
      throw unsupportedAt(base + at, 'an extended attribute in an inode of its own');
    if (at + 16 + nameBytes > area.length || valueAt + valueBytes > area.length) {
      throw invalidAt(base + at, 'an extended attribute reaches beyond its place');
    }
    const prefix = XATTR_PREFIXES.get(index) ?? (index === 7 ? 'system.' : undefined);
    if (prefix === undefined) throw unsupportedAt(base + at, `an extended attribute of the kind ${index}`);
    if (XATTR_WHOLE_NAMES.has(index) !== (nameBytes === 0))
      throw invalidAt(base + at, 'an extended attribute is misnamed');
    budgets.xattrBytes.spend(16 + nameBytes + valueBytes);
    const value = area.slice(valueAt, valueAt + valueBytes);
    found.push({
      name: prefix + byteStringOf(area.subarray(at + 16, at + 16 + nameBytes)),
      value: XATTR_WHOLE_NAMES.has(index) ? aclOf(value, base + at) : value,
    });
    at += 16 + Math.ceil(nameBytes / 4) * 4;
  }
}

/** Tags of access list entries that name somebody, and so have an id. */
const NAMED = new Set([2, 8]);
const ACL_VERSION = { stored: 1, shown: 2 } as const;

/** ext4 keeps access lists without the ids that mean nothing; programs see all entries alike (linux/posix_acl_xattr.h). */
function aclOf(stored: Uint8Array, offset: number): Uint8Array {
  const view = new DataView(stored.buffer, stored.byteOffset, stored.length);
  const bad = () => invalidAt(offset, 'an access list cannot be read');
  if (stored.length < 4 || view.getUint32(0, true) !== ACL_VERSION.stored) throw bad();
  const entries: (readonly [tag: number, permissions: number, id: number])[] = [];
  for (let at = 4; at < stored.length;) {
    const named = at + 4 <= stored.length && NAMED.has(view.getUint16(at, true));
    const size = named ? 8 : 4;
    if (at + size > stored.length) throw bad();
    const id = named ? view.getUint32(at + 4, true) : TWO_32 - 1;
    entries.push([view.getUint16(at, true), view.getUint16(at + 2, true), id]);
    at += size;
  }
  const shown = new DataView(new ArrayBuffer(4 + 8 * entries.length));
  shown.setUint32(0, ACL_VERSION.shown, true);
  for (const [index, [tag, permissions, id]] of entries.entries()) {
    shown.setUint16(4 + 8 * index, tag, true);
    shown.setUint16(6 + 8 * index, permissions, true);
    shown.setUint32(8 + 8 * index, id, true);
  }
  return new Uint8Array(shown.buffer);
}
