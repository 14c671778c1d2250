import type { RandomAccess } from '@decant/cas';
import { GIB, MIB } from '@decant/core';

import { Budget } from './budget.ts';
import { byteStringOf } from './byte-string.ts';
import { decodeDevice } from './erofs-format.ts';
import { readRange, type ImageDirectory, type ImageFile, type ImageNode } from './erofs-read.ts';
import { readExt4Inode, unsupportedAt, type Ext4Inode, type Ext4Layout } from './ext4-inode.ts';
import { invalidAt, MetadataReader } from './metadata-reader.ts';
import type { ByteString } from './tree.ts';

export interface ReadExt4Options {
  readonly signal?: AbortSignal | undefined;
}

/** The tree of an ext4 image. It reads from the source for as long as that is open. */
export interface Ext4Image {
  readonly root: ImageDirectory;
  /** Bytes of a file from `offset`, fewer at its end; holes are zeros. At most 64 MiB at once. */
  readFile(
    file: ImageFile,
    offset: number,
    lengthBytes: number,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<Uint8Array>;
}

const SUPERBLOCK = { offset: 1024, bytes: 1024, magic: 0xef53 } as const;
/** Parts of the format that must be understood (EXT4_FEATURE_INCOMPAT_…): filetype, extents, 64bit, flex_bg, csum_seed. */
const KNOWN_FEATURES = 0x2 | 0x40 | 0x80 | 0x200 | 0x2000;
const HAS_64_BITS = 0x80;
const NEEDS_RECOVERY = 0x4;
const ROOT_INODE = 2;
const LOST_FOUND_INODE = 11;
const MOST_INODES = 2_000_000;
const MOST_NAMES = 4_000_000;
const MOST_RANGES = 4_000_000;
const MOST_TARGET_BYTES = 4095;

/**
 * Reads the tree of an ext4 image without mounting it, as `writeExt4` and `mkfs.ext4 -d` make them: files in extents,
 * no journal to replay. An empty `lost+found` at the root belongs to the filesystem and is left out. Checksums are not
 * checked; whatever the bytes are, memory and time are bounded, and nothing outside the image is read.
 * @throws ROOTFS_INVALID with `details.offset`, ROOTFS_UNSUPPORTED, LIMIT_EXCEEDED
 */
export async function readExt4(source: RandomAccess, { signal }: ReadExt4Options = {}): Promise<Ext4Image> {
  signal?.throwIfAborted();
  if (source.sizeBytes < SUPERBLOCK.offset + SUPERBLOCK.bytes) throw invalidAt(0, 'it is shorter than a superblock');
  const reader = new MetadataReader(source, GIB, signal);
  const layout = await readExt4Layout(reader, source.sizeBytes);
  const budgets = {
    xattrBytes: new Budget(64 * MIB, 'bytes of extended attributes'),
    ranges: new Budget(MOST_RANGES, 'runs of file data'),
  };
  const inodeBudget = new Budget(MOST_INODES, 'inodes');
  const nameBudget = new Budget(MOST_NAMES, 'names');
  const found = new Map<number, ImageNode>();
  const queue: { readonly inode: Ext4Inode; readonly entries: Map<ByteString, ImageNode> }[] = [];
  const open = async (number: number): Promise<ImageNode> => {
    inodeBudget.spend(1);
    const inode = await readExt4Inode(reader, layout, budgets, number);
    const entries = new Map<ByteString, ImageNode>();
    if (inode.kind === 'directory') queue.push({ inode, entries });
    const node = await nodeOf(reader, inode, entries);
    found.set(number, node);
    return node;
  };
  const root = await open(ROOT_INODE);
  if (root.kind !== 'directory') throw invalidAt(SUPERBLOCK.offset, 'the root is no directory');
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const names = [];
    for await (const entry of namesOf(reader, layout, next.inode)) {
      nameBudget.spend(1);
      names.push(entry);
    }
    for (const { name, number, offset } of names.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const known = found.get(number);
      if (known?.kind === 'directory') throw invalidAt(offset, 'a directory has two names');
      if (next.entries.has(name)) throw invalidAt(offset, 'a directory has a name twice');
      next.entries.set(name, known ?? (await open(number)));
    }
  }
  const lostFound = found.get(LOST_FOUND_INODE);
  const entries = new Map(root.entries);
  if (lostFound?.kind === 'directory' && lostFound.entries.size === 0 && entries.get('lost+found') === lostFound) {
    entries.delete('lost+found');
  }
  return {
    root: { ...root, entries },
    readFile: (file, offset, lengthBytes, options) => readRange(source, file, offset, lengthBytes, options),
  };
}

/** What the superblock says; later reads end with the filesystem. @throws ROOTFS_INVALID, ROOTFS_UNSUPPORTED */
export async function readExt4Layout(reader: MetadataReader, sourceBytes: number): Promise<Ext4Layout> {
  const at = SUPERBLOCK.offset;
  const bytes = await reader.read(at, SUPERBLOCK.bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint16(0x38, true) !== SUPERBLOCK.magic) throw invalidAt(at + 0x38, 'it has no superblock of ext4');
  const features = view.getUint32(0x60, true);
  if ((features & NEEDS_RECOVERY) !== 0) throw unsupportedAt(at + 0x60, 'a journal that was not replayed');
  if ((features & ~KNOWN_FEATURES) !== 0) {
    throw unsupportedAt(at + 0x60, `features 0x${(features & ~KNOWN_FEATURES).toString(16)}`);
  }
  const logBlock = view.getUint32(0x18, true);
  if (logBlock > 2) throw unsupportedAt(at + 0x18, 'blocks over 4,096 bytes');
  const blockBytes = 1024 << logBlock;
  const is64 = (features & HAS_64_BITS) !== 0;
  const blocks = (is64 ? view.getUint32(0x150, true) * 2 ** 32 : 0) + view.getUint32(4, true);
  const inodeBytes = view.getUint32(0x4c, true) === 0 ? 128 : view.getUint16(0x58, true);
  const descriptorBytes = is64 ? view.getUint16(0xfe, true) : 32;
  const inodesPerGroup = view.getUint32(0x28, true);
  if (blocks * blockBytes > sourceBytes) throw invalidAt(at + 4, 'it is longer than the image');
  if (inodeBytes < 128 || inodeBytes > blockBytes || (inodeBytes & (inodeBytes - 1)) !== 0) {
    throw invalidAt(at + 0x58, 'the size of inodes is impossible');
  }
  if (descriptorBytes < (is64 ? 64 : 32) || descriptorBytes > blockBytes || inodesPerGroup === 0) {
    throw invalidAt(at + 0x28, 'the groups are impossible');
  }
  reader.endBytes = blocks * blockBytes;
  return {
    blockBytes,
    blocks,
    inodes: view.getUint32(0, true),
    inodesPerGroup,
    inodeBytes,
    descriptorBytes,
    descriptorsOffset: (view.getUint32(0x14, true) + 1) * blockBytes,
  };
}

async function nodeOf(
  reader: MetadataReader,
  inode: Ext4Inode,
  entries: ReadonlyMap<ByteString, ImageNode>,
): Promise<ImageNode> {
  const { kind, meta, sizeBytes, ranges, inPlace, offset } = inode;
  switch (kind) {
    case 'file':
      return { kind, meta, sizeBytes, ranges };
    case 'directory':
      return { kind, meta, entries };
    case 'symlink': {
      if (sizeBytes === 0 || sizeBytes > MOST_TARGET_BYTES)
        throw invalidAt(offset, 'the target of a link is impossible');
      const [range] = ranges;
      if (range === undefined ? sizeBytes >= inPlace.length : range.lengthBytes !== sizeBytes) {
        throw invalidAt(offset, 'the target of a link is not where it should be');
      }
      const target =
        range === undefined ? inPlace.subarray(0, sizeBytes) : await reader.read(range.imageOffset, sizeBytes);
      return { kind, meta, target: byteStringOf(target) };
    }
    case 'character-device':
    case 'block-device': {
      const view = new DataView(inPlace.buffer, inPlace.byteOffset, inPlace.length);
      const old = view.getUint32(0, true);
      // Small numbers are stored in the 16 bits that they had first.
      const numbers =
        old === 0 ? decodeDevice(view.getUint32(4, true)) : { major: (old >>> 8) & 0xff, minor: old & 0xff };
      return { kind, meta, ...numbers };
    }
    default:
      return { kind, meta };
  }
}

async function* namesOf(reader: MetadataReader, { blockBytes }: Ext4Layout, { ranges, offset, sizeBytes }: Ext4Inode) {
  if (sizeBytes % blockBytes !== 0) throw invalidAt(offset, 'a directory does not end with a block');
  for (const { imageOffset, lengthBytes } of ranges) {
    for (let block = imageOffset; block < imageOffset + lengthBytes; block += blockBytes) {
      // A copy, because the caller reads other places in between.
      const bytes = (await reader.read(block, blockBytes)).slice();
      const view = new DataView(bytes.buffer);
      for (let at = 0; at < blockBytes;) {
        if (at + 8 > blockBytes) throw invalidAt(block + at, 'a directory entry is cut off');
        const number = view.getUint32(at, true);
        const length = view.getUint16(at + 4, true);
        const nameBytes = bytes[at + 6]!;
        if (length < 8 || length % 4 !== 0 || at + length > blockBytes || nameBytes + 8 > length) {
          throw invalidAt(block + at, 'a directory entry is impossible');
        }
        const name = byteStringOf(bytes.subarray(at + 8, at + 8 + nameBytes));
        // Unused entries, which also hide the index and the checksum of a block.
        if (number !== 0 && name !== '.' && name !== '..') {
          if (name === '' || /[/\0]/.test(name)) throw invalidAt(block + at, 'a name is impossible');
          yield { name, number, offset: block + at };
        }
        at += length;
      }
    }
  }
}
