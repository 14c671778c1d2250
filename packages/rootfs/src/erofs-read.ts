import type { RandomAccess } from '@decant/cas';
import { GIB, MIB } from '@decant/core';

import { Budget } from './budget.ts';
import { byteStringOf } from './byte-string.ts';
import { decodeDirectoryBlock, type DirectoryEntry } from './directory-blocks.ts';
import {
  BLOCK_BYTES,
  decodeDevice,
  ENTRY_TYPES,
  NAME_MAX,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSET,
} from './erofs-format.ts';
import { readInode, type ImageRange, type ReadInode } from './erofs-inode.ts';
import { readSuperblock, type ErofsSuperblock } from './erofs-superblock.ts';
import { InodeTable } from './inode-table.ts';
import { invalidAt, MetadataReader } from './metadata-reader.ts';
import type { ByteString, DeviceNode, Metadata, SpecialNode, SymlinkNode } from './tree.ts';

/** A regular file as an image holds it. */
export interface ImageFile {
  readonly kind: 'file';
  readonly meta: Metadata;
  readonly sizeBytes: number;
  /** Ascending; whatever none covers is a hole. */
  readonly ranges: readonly ImageRange[];
}

export interface ImageDirectory {
  readonly kind: 'directory';
  readonly meta: Metadata;
  /** In byte order of the names; the same node under several names is a hard link. */
  readonly entries: ReadonlyMap<ByteString, ImageNode>;
}

export type ImageNode = ImageFile | ImageDirectory | SymlinkNode | DeviceNode | SpecialNode;

export interface ErofsLimits {
  /** Default 2,000,000. About 500 bytes of memory each. */
  readonly maxInodes?: number | undefined;
  /** Names in all directories together; default 4,000,000. */
  readonly maxNames?: number | undefined;
  /** Separate runs of file data; default 4,000,000. */
  readonly maxRanges?: number | undefined;
  /** Bytes of all extended attributes, shared ones as often as they are used; default 64 MiB. */
  readonly maxXattrBytes?: number | undefined;
  /** Bytes of inodes, directories, links, xattrs and chunk maps; default 1 GiB. */
  readonly maxMetadataBytes?: number | undefined;
}

export interface ReadErofsOptions {
  readonly limits?: ErofsLimits | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A checked EROFS image. It reads from the source for as long as that is open. */
export interface ErofsImage {
  readonly root: ImageDirectory;
  readonly inodeCount: number;
  /** Of the filesystem; the source may be longer. */
  readonly sizeBytes: number;
  /** End of the last byte of metadata, rounded up to 4,096. */
  readonly metadataBytes: number;
  /** Ascending numbers of the 4,096-byte blocks with metadata: all that a checker needs to see. */
  readonly metadataBlocks: readonly number[];
  readonly uuid: Uint8Array;
  /** Bytes of a file from `offset`, fewer at its end; holes are zeros. At most 64 MiB at once. */
  readFile(
    file: ImageFile,
    offset: number,
    lengthBytes: number,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<Uint8Array>;
}

/** Takes what is found while an image is walked through, by the inodes' numbers: the root first, a directory before what it names. */
interface Finds {
  /** Called once for each number, in ascending order. */
  inode(node: ImageNode): void;
  name(directory: number, name: ByteString, child: number): void;
}

const MOST_READ_BYTES = 64 * 1024 * 1024;

/**
 * Reads the metadata of an EROFS image without mounting it and checks all of it: superblock, every inode, xattrs,
 * directory order, entry types, names, link counts, block ranges, that directories form a tree, that no two inodes
 * share bytes and that no file data lies over metadata. File data is not read. Reads images of `mkfs.erofs` too,
 * as long as nothing in them is compressed. Memory and time are bounded by the limits.
 * @throws ROOTFS_INVALID with `details.offset`, ROOTFS_UNSUPPORTED, LIMIT_EXCEEDED
 */
export async function readErofs(source: RandomAccess, options: ReadErofsOptions = {}): Promise<ErofsImage> {
  const nodes: ImageNode[] = [];
  const scan = await scanWith(source, options, {
    inode: (node) => void nodes.push(node),
    name(directory, name, child) {
      // It is this call's own tree until it is returned.
      const { entries } = nodes[directory] as ImageDirectory;
      (entries as Map<ByteString, ImageNode>).set(name, nodes[child]!);
    },
  });
  return {
    ...scan,
    root: nodes[0] as ImageDirectory,
    readFile: (file, offset, lengthBytes, readOptions) => readRange(source, file, offset, lengthBytes, readOptions),
  };
}

/** What is known of an image whose metadata was checked, besides its tree. */
export type ErofsFacts = Omit<ErofsImage, 'root' | 'readFile'>;

/** Checks all that {@link readErofs} does and keeps no tree: in some 100 bytes of memory an inode. */
export function scanErofs(source: RandomAccess, options: ReadErofsOptions = {}): Promise<ErofsFacts> {
  return scanWith(source, options, { inode: () => undefined, name: () => undefined });
}

async function scanWith(source: RandomAccess, options: ReadErofsOptions, finds: Finds): Promise<ErofsFacts> {
  const { limits = {}, signal } = options;
  signal?.throwIfAborted();
  if (source.sizeBytes < BLOCK_BYTES) throw invalidAt(0, 'it is shorter than a block');
  const reader = new MetadataReader(source, limits.maxMetadataBytes ?? GIB, signal);
  const superblock = await readSuperblock(reader, source.sizeBytes);
  const table = await walk(reader, superblock, limits, finds);
  if (table.size !== superblock.inodeCount) throw invalidAt(1024 + 16, 'the number of inodes is wrong');
  for (let number = 0; number < table.size; number++) checkLinks(table, number);
  const metadataBlocks = [...reader.touched].sort((a, b) => a - b);
  checkOverlaps(table, metadataBlocks);
  return {
    inodeCount: table.size,
    sizeBytes: reader.endBytes,
    metadataBytes: (metadataBlocks.at(-1)! + 1) * BLOCK_BYTES,
    metadataBlocks,
    uuid: superblock.uuid,
  };
}

async function walk(
  reader: MetadataReader,
  superblock: ErofsSuperblock,
  limits: ErofsLimits,
  finds: Finds,
): Promise<InodeTable> {
  const inodeBudget = new Budget(limits.maxInodes ?? 2_000_000, 'inodes');
  const nameBudget = new Budget(limits.maxNames ?? 4_000_000, 'names');
  const budgets = {
    xattrBytes: new Budget(limits.maxXattrBytes ?? 64 * MIB, 'bytes of extended attributes'),
    ranges: new Budget(limits.maxRanges ?? 4_000_000, 'runs of file data'),
  };
  const table = new InodeTable();
  /** Directories still to be listed, with their numbers. */
  const queue: { readonly number: number; readonly inode: ReadInode }[] = [];
  const open = async (nid: number, parentNid: number): Promise<number> => {
    inodeBudget.spend(1);
    const inode = await readInode({ reader, superblock, budgets }, nid);
    finds.inode(await nodeOf(reader, inode));
    const number = table.add(inode, parentNid);
    if (inode.kind === 'directory') queue.push({ number, inode });
    return number;
  };
  const root = await open(superblock.rootNid, superblock.rootNid);
  if (table.kind(root) !== 'directory') throw invalidAt(table.offset(root) + 4, 'the root is no directory');
  table.addName(root);
  for (let next = 0; next < queue.length; next++) {
    const { number: directory, inode } = queue[next]!;
    for await (const { entry, offset } of readEntries(reader, inode, table.parentNid(directory))) {
      nameBudget.spend(1);
      const known = table.find(entry.nid);
      if (known !== undefined && table.kind(known) === 'directory') {
        throw invalidAt(offset, 'a directory has a second name');
      }
      const child = known ?? (await open(entry.nid, inode.nid));
      const kind = table.kind(child);
      if (ENTRY_TYPES[kind] !== entry.type) {
        throw invalidAt(offset, 'the type in a directory entry is not that of its inode');
      }
      table.addName(child);
      if (kind === 'directory') table.addSubdirectory(directory);
      finds.name(directory, entry.name, child);
    }
  }
  return table;
}

/** The node of an inode; a directory is empty. */
async function nodeOf(reader: MetadataReader, inode: ReadInode): Promise<ImageNode> {
  const { kind, meta } = inode;
  switch (kind) {
    case 'file':
      return { kind, meta, sizeBytes: inode.sizeBytes, ranges: inode.ranges };
    case 'directory':
      return { kind, meta, entries: new Map() };
    case 'symlink': {
      const parts: Uint8Array[] = [];
      for (const range of inode.ranges) parts.push(await reader.read(range.imageOffset, range.lengthBytes));
      const target = byteStringOf(Buffer.concat(parts));
      if (target.includes('\0')) throw invalidAt(inode.offset, 'a link target has a NUL in it');
      return { kind, meta, target };
    }
    case 'character-device':
    case 'block-device':
      return { kind, meta, ...decodeDevice(inode.device) };
    default:
      return { kind, meta };
  }
}

/** The entries of a directory except `.` and `..`, which are checked here. */
async function* readEntries(
  reader: MetadataReader,
  inode: ReadInode,
  parentNid: number,
): AsyncGenerator<{ entry: DirectoryEntry; offset: number }, void, undefined> {
  let before: ByteString | undefined;
  let dots = 0;
  for (const range of inode.ranges) {
    for (let at = 0; at < range.lengthBytes; at += BLOCK_BYTES) {
      const offset = range.imageOffset + at;
      const block = await reader.read(offset, Math.min(BLOCK_BYTES, range.lengthBytes - at));
      const entries = decodeDirectoryBlock(block);
      if (typeof entries === 'string') throw invalidAt(offset, entries);
      for (const entry of entries) {
        const { name } = entry;
        checkName(name, before, offset);
        before = name;
        if (name === '.' || name === '..') {
          dots++;
          const target = name === '.' ? inode.nid : parentNid;
          if (entry.nid !== target || entry.type !== ENTRY_TYPES.directory) {
            throw invalidAt(offset, `the entry ${name} of a directory points elsewhere`);
          }
        } else {
          yield { entry, offset };
        }
      }
    }
  }
  if (dots !== 2) throw invalidAt(inode.offset, 'a directory lacks . or ..');
}

function checkName(name: ByteString, before: ByteString | undefined, offset: number): void {
  if (name.length > NAME_MAX || name === '' || /[/\0]/.test(name)) throw invalidAt(offset, 'a name is impossible');
  if (before !== undefined && !(before < name)) throw invalidAt(offset, 'the names of a directory are not in order');
}

function checkLinks(table: InodeTable, number: number): void {
  const { actual, expected } = table.links(number);
  if (actual !== expected) {
    throw invalidAt(table.offset(number), `the link count is ${actual} and should be ${expected}`);
  }
}

/** Inodes with what belongs to them lie apart, and file data apart from all metadata. */
function checkOverlaps(table: InodeTable, metadataBlocks: readonly number[]): void {
  let end = SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES;
  for (const number of table.inOrderOfOffsets()) {
    const offset = table.offset(number);
    if (offset < end) throw invalidAt(offset, 'an inode overlaps another or the superblock');
    end = table.end(number);
  }
  for (const { inode, imageOffset, lengthBytes } of table.dataRuns()) {
    const first = imageOffset / BLOCK_BYTES;
    const next = metadataBlocks[lowerBound(metadataBlocks, first)];
    if (next !== undefined && next < first + Math.ceil(lengthBytes / BLOCK_BYTES)) {
      throw invalidAt(table.offset(inode), 'file data lies over metadata');
    }
  }
}

/** Index of the first value that is not under `least`. */
function lowerBound(ascending: readonly number[], least: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! < least) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Bytes of a file by its ranges, fewer at its end; holes are zeros. */
export async function readRange(
  source: RandomAccess,
  file: ImageFile,
  offset: number,
  lengthBytes: number,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<Uint8Array> {
  if (!(offset >= 0) || !(lengthBytes >= 0) || lengthBytes > MOST_READ_BYTES) {
    throw new RangeError('a read of a file takes an offset of at least 0 and at most 64 MiB');
  }
  const end = Math.min(offset + lengthBytes, file.sizeBytes);
  const bytes = new Uint8Array(Math.max(0, end - offset));
  for (const range of file.ranges) {
    const from = Math.max(offset, range.fileOffset);
    const to = Math.min(end, range.fileOffset + range.lengthBytes);
    if (from >= to) continue;
    const part = await source.read(range.imageOffset + (from - range.fileOffset), to - from, options);
    bytes.set(part, from - offset);
  }
  return bytes;
}
