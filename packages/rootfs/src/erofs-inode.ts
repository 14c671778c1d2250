import { PAGE_BYTES } from '@decant/core';

import type { Budget } from './budget.ts';
import {
  BLOCK_BYTES,
  CHUNK_BITS_MASK,
  CHUNK_INDEXES,
  COMPACT_INODE_BYTES,
  INODE_BYTES,
  kindOfMode,
  LAYOUT_CHUNKS,
  LAYOUT_INLINE,
  LAYOUT_PLAIN,
  NID_BYTES,
  NULL_BLOCK,
  SYMLINK_MAX,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
  type NodeKind,
} from './erofs-format.ts';
import type { ErofsSuperblock } from './erofs-superblock.ts';
import { invalidAt, type MetadataReader } from './metadata-reader.ts';
import type { Metadata, Xattr } from './tree.ts';
import { decodeXattr } from './xattr-area.ts';

/** A run of data and where the image has it. */
export interface ImageRange {
  readonly fileOffset: number;
  readonly lengthBytes: number;
  readonly imageOffset: number;
}

export interface ReadInode {
  readonly nid: number;
  readonly offset: number;
  /** First byte behind the inode, its xattrs and its inline data or chunk map. */
  readonly end: number;
  readonly kind: NodeKind;
  readonly meta: Metadata;
  readonly links: number;
  readonly sizeBytes: number;
  readonly device: number;
  /** Ascending; what none covers is a hole. Inline data counts. */
  readonly ranges: readonly ImageRange[];
  /** Whether a range is inside the inode's own area. */
  readonly inline: boolean;
}

/** What all inodes together may make the reader keep. */
export interface InodeBudgets {
  readonly xattrBytes: Budget;
  readonly ranges: Budget;
}

/** What reading an inode needs. */
export interface InodeContext {
  readonly reader: MetadataReader;
  readonly superblock: ErofsSuperblock;
  readonly budgets: InodeBudgets;
}

interface Head {
  readonly bytes: Buffer;
  readonly offset: number;
  readonly extended: boolean;
  readonly layout: number;
  readonly xattrBytes: number;
  readonly kind: NodeKind;
  readonly sizeBytes: number;
}

/** Most bytes of one chunk map that are read at once. */
const MAP_STEP_BYTES = 64 * 1024;

/**
 * Reads one inode and everything that belongs to it except data in blocks of its own.
 * @throws ROOTFS_INVALID naming the byte at fault
 */
export async function readInode(context: InodeContext, nid: number): Promise<ReadInode> {
  const { superblock } = context;
  const head = await readHead(context, nid);
  const { bytes, offset, extended, kind, sizeBytes } = head;
  const headBytes = extended ? INODE_BYTES : COMPACT_INODE_BYTES;
  const xattrs = await readXattrs(context, offset + headBytes, head.xattrBytes);
  const behind = offset + headBytes + head.xattrBytes;
  const data = hasData(kind) ? await readRanges(context, head, behind) : { ranges: [], end: behind, inline: false };
  const nanoseconds = extended ? bytes.readUInt32LE(40) : superblock.buildNanoseconds;
  const seconds = extended ? Number(bytes.readBigInt64LE(32)) : superblock.buildSeconds;
  if (nanoseconds > 999_999_999 || !Number.isSafeInteger(seconds)) {
    throw invalidAt(offset + 32, 'the modification time is impossible');
  }
  const meta: Metadata = {
    mode: bytes.readUInt16LE(4) & 0o7777,
    uid: extended ? bytes.readUInt32LE(24) : bytes.readUInt16LE(24),
    gid: extended ? bytes.readUInt32LE(28) : bytes.readUInt16LE(26),
    mtimeSeconds: seconds,
    mtimeNanoseconds: nanoseconds,
    xattrs,
  };
  const links = extended ? bytes.readUInt32LE(44) : bytes.readUInt16LE(6);
  return { nid, offset, kind, meta, links, sizeBytes, device: bytes.readUInt32LE(16), ...data };
}

async function readHead({ reader, superblock }: InodeContext, nid: number): Promise<Head> {
  const offset = superblock.metadataStart + nid * NID_BYTES;
  const compact = await reader.read(offset, COMPACT_INODE_BYTES);
  const format = compact[0]! | (compact[1]! << 8);
  const extended = (format & 1) === 1;
  const layout = (format >>> 1) & 7;
  if (format >>> 4 !== 0 || ![LAYOUT_PLAIN, LAYOUT_INLINE, LAYOUT_CHUNKS].includes(layout)) {
    throw invalidAt(offset, `the inode has the unknown or compressed format ${format}`);
  }
  const bytes = Buffer.from(extended ? await reader.read(offset, INODE_BYTES) : compact);
  const reserved = extended
    ? [bytes.readUInt16LE(6), ...bytes.subarray(48)]
    : [bytes.readUInt32LE(12), bytes.readUInt32LE(28)];
  if (reserved.some((value) => value !== 0)) throw invalidAt(offset, 'the inode has reserved bytes set');
  const kind = kindOfMode(bytes.readUInt16LE(4));
  if (kind === undefined) throw invalidAt(offset + 4, 'the inode is of no known type');
  const sizeBytes = extended ? Number(bytes.readBigUInt64LE(8)) : bytes.readUInt32LE(8);
  if (!Number.isSafeInteger(sizeBytes)) throw invalidAt(offset + 8, 'the size is impossible');
  if (!hasData(kind) && (sizeBytes !== 0 || layout !== LAYOUT_PLAIN)) {
    throw invalidAt(offset, 'a device, pipe or socket has data');
  }
  if (kind === 'symlink' && (sizeBytes === 0 || sizeBytes > SYMLINK_MAX)) {
    throw invalidAt(offset + 8, 'the link target has an impossible length');
  }
  if (kind !== 'file' && layout === LAYOUT_CHUNKS) throw invalidAt(offset, 'something that is no file has chunks');
  if (layout === LAYOUT_CHUNKS && !superblock.chunked) throw invalidAt(offset, 'chunks are used but not declared');
  const units = bytes.readUInt16LE(2);
  const xattrBytes = units === 0 ? 0 : XATTR_HEADER_BYTES + (units - 1) * 4;
  return { bytes, offset, extended, layout, xattrBytes, kind, sizeBytes };
}

function hasData(kind: NodeKind): boolean {
  return kind === 'file' || kind === 'directory' || kind === 'symlink';
}

async function readXattrs(context: InodeContext, offset: number, lengthBytes: number): Promise<Xattr[]> {
  const { reader, superblock, budgets } = context;
  if (lengthBytes === 0) return [];
  const area = Buffer.from(await reader.read(offset, lengthBytes));
  budgets.xattrBytes.spend(lengthBytes);
  const sharedCount = area[4]!;
  let at = XATTR_HEADER_BYTES + 4 * sharedCount;
  if (at > lengthBytes || area.subarray(5, XATTR_HEADER_BYTES).some((byte) => byte !== 0)) {
    throw invalidAt(offset, 'the extended attributes have a broken header');
  }
  const xattrs: Xattr[] = [];
  for (let i = 0; i < sharedCount; i++) {
    const id = area.readUInt32LE(XATTR_HEADER_BYTES + 4 * i);
    xattrs.push(await readSharedXattr(reader, superblock.sharedXattrStart + 4 * id, budgets));
  }
  while (at < lengthBytes) {
    const decoded = decodeXattr(area, at);
    if (typeof decoded === 'string') throw invalidAt(offset + at, decoded);
    xattrs.push(decoded.xattr);
    at += decoded.lengthBytes;
  }
  xattrs.sort((a, b) => (a.name < b.name ? -1 : 1));
  if (xattrs.some(({ name }, i) => name === xattrs[i + 1]?.name)) {
    throw invalidAt(offset, 'an extended attribute appears twice');
  }
  return xattrs;
}

async function readSharedXattr(reader: MetadataReader, offset: number, budgets: InodeBudgets): Promise<Xattr> {
  const head = Buffer.from(await reader.read(offset, XATTR_ENTRY_BYTES));
  const lengthBytes = (XATTR_ENTRY_BYTES + head[0]! + head.readUInt16LE(2) + 3) & ~3;
  budgets.xattrBytes.spend(lengthBytes);
  const decoded = decodeXattr(await reader.read(offset, lengthBytes), 0);
  if (typeof decoded === 'string') throw invalidAt(offset, decoded);
  return decoded.xattr;
}

interface DataPlace {
  readonly ranges: ImageRange[];
  readonly end: number;
  readonly inline: boolean;
}

async function readRanges(context: InodeContext, head: Head, behind: number): Promise<DataPlace> {
  const { reader, superblock } = context;
  const { bytes, offset, layout, sizeBytes } = head;
  if (layout === LAYOUT_CHUNKS) return readChunkMap(context, head, behind);
  const tailBytes = layout === LAYOUT_INLINE ? sizeBytes % BLOCK_BYTES : 0;
  const wholeBytes = sizeBytes - tailBytes;
  const ranges: ImageRange[] = [];
  if (wholeBytes > 0) {
    const block = bytes.readUInt32LE(16);
    if (block + Math.ceil(wholeBytes / BLOCK_BYTES) > superblock.blocks) {
      throw invalidAt(offset + 16, 'the data reaches beyond the end of the filesystem');
    }
    ranges.push({ fileOffset: 0, lengthBytes: wholeBytes, imageOffset: block * BLOCK_BYTES });
  }
  if (tailBytes > 0) {
    if ((behind % BLOCK_BYTES) + tailBytes > BLOCK_BYTES) throw invalidAt(behind, 'inline data crosses a block');
    ranges.push({ fileOffset: wholeBytes, lengthBytes: tailBytes, imageOffset: behind });
    await reader.read(behind, tailBytes);
  }
  return { ranges, end: behind + tailBytes, inline: tailBytes > 0 };
}

async function readChunkMap(
  { reader, superblock, budgets }: InodeContext,
  { bytes, offset, sizeBytes }: Head,
  behind: number,
): Promise<DataPlace> {
  const format = bytes.readUInt16LE(16);
  if ((format & ~(CHUNK_BITS_MASK | CHUNK_INDEXES)) !== 0 || bytes.readUInt16LE(18) !== 0) {
    throw invalidAt(offset + 16, 'the chunk format is unknown');
  }
  const chunkBytes = PAGE_BYTES * 2 ** (format & CHUNK_BITS_MASK);
  const entryBytes = (format & CHUNK_INDEXES) === 0 ? 4 : 8;
  const chunks = Math.ceil(sizeBytes / chunkBytes);
  const start = Math.ceil(behind / entryBytes) * entryBytes;
  const end = start + chunks * entryBytes;
  // Before anything is read or kept for it: a map cannot be larger than the filesystem it is in.
  if (end > reader.endBytes) throw invalidAt(start, 'the chunk map reaches beyond the end of the filesystem');
  const ranges: { fileOffset: number; lengthBytes: number; imageOffset: number }[] = [];
  for (let first = 0; first < chunks; first += MAP_STEP_BYTES / entryBytes) {
    const count = Math.min(chunks - first, MAP_STEP_BYTES / entryBytes);
    const at = start + first * entryBytes;
    const map = Buffer.from(await reader.read(at, count * entryBytes));
    for (let i = 0; i < count; i++) {
      const entry = i * entryBytes;
      if (entryBytes === 8 && map.readUInt32LE(entry) !== 0)
        throw invalidAt(at + entry, 'a chunk is on another device');
      const block = map.readUInt32LE(entry + entryBytes - 4);
      if (block === NULL_BLOCK) continue;
      const fileOffset = (first + i) * chunkBytes;
      const lengthBytes = Math.min(chunkBytes, sizeBytes - fileOffset);
      if (block + Math.ceil(lengthBytes / BLOCK_BYTES) > superblock.blocks) {
        throw invalidAt(at + entry, 'a chunk reaches beyond the end of the filesystem');
      }
      const imageOffset = block * BLOCK_BYTES;
      const last = ranges.at(-1);
      const follows = last !== undefined && last.fileOffset + last.lengthBytes === fileOffset;
      if (follows && last.imageOffset + last.lengthBytes === imageOffset) last.lengthBytes += lengthBytes;
      else {
        budgets.ranges.spend(1);
        ranges.push({ fileOffset, lengthBytes, imageOffset });
      }
    }
  }
  return { ranges, end, inline: false };
}
