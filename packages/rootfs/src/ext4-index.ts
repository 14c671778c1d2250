import { crc32c } from './crc32c.ts';
import { ENTRY_TYPES } from './erofs-format.ts';
import { hashName, type NameHash } from './ext4-name-hash.ts';
import { pathOf, unsupported, type Inode } from './inventory.ts';
import type { ByteString } from './tree.ts';

/**
 * A directory with an index, as Linux `fs/ext4/namei.c` and the kernel's `filesystems/ext4/directory.rst` describe it. Blocks
 * of 4,096 bytes, integers little-endian:
 *
 *     entry             0 u32 inode   4 u16 length   6 u8 bytes of the name   7 u8 type   8 the name
 *     root, block 0     0 entry `.` of 12   12 entry `..` of 4,084   24 u32 0   28 u8 hash   29 u8 8   30 u8 levels below
 *                       31 u8 0   32 u16 most pointers (507)   34 u16 pointers   36 u32 block of pointer 0   40 more pointers
 *     node              0 an unused entry of 4,096   8 u16 most pointers (510)   10 u16 pointers   12 u32 block   16 more
 *     pointer           0 u32 lowest hash in there, odd when the block before ends with it   4 u32 block of the directory
 *                       the last 8 bytes of root and node: u32 0, u32 checksum of what is used before, and of eight zeros
 *     leaf              entries; the last reaches to 4,084; then an unused entry of 12 with type 0xde, its name the checksum
 *
 * Checksums are CRC-32C from the filesystem's UUID, the number and the generation of the inode.
 */
const BLOCK_BYTES = 4096;
const ROOT = { infoAt: 24, pointersAt: 32, most: 507 } as const;
const NODE = { pointersAt: 8, most: 510 } as const;
const POINTER_BYTES = 8;
const CHECKSUM_AT = BLOCK_BYTES - 8;
const LEAF_BYTES = BLOCK_BYTES - 12;
const ENTRY_BYTES = 8;
/** The number of the hash that `hashName` is. */
export const HALF_MD4 = 1;
const CHECKSUM_TYPE = 0xde;

/** From here on debugfs, which walks a directory for every name it adds, takes longer than an index. */
const FEW_BYTES = 32 * 1024;

export interface IndexedEntry {
  readonly name: ByteString;
  readonly inode: number;
  readonly type: number;
}

/** What the blocks of a directory will hold. */
export interface IndexedDirectory {
  readonly blocks: number;
  readonly entries: readonly IndexedEntry[];
  readonly leaves: readonly Leaf[];
}

interface Leaf {
  /** Of its first entry, odd when the leaf before ends with the same. */
  readonly hash: number;
  readonly from: number;
  readonly to: number;
}

function entryBytes(name: ByteString): number {
  return ENTRY_BYTES + ((name.length + 3) & ~3);
}

function linearBytes({ children }: Inode): number {
  let bytes = 0;
  for (const { name } of children) bytes += entryBytes(name);
  return bytes;
}

/** Whether a directory has so many names that they are written with an index, and not by debugfs. */
export function isIndexed(directory: Inode): boolean {
  return directory.children.length * (ENTRY_BYTES + 256) > FEW_BYTES && linearBytes(directory) > FEW_BYTES;
}

/** About how many blocks an indexed directory takes: in each leaf half a name of the mean length stays free. */
export function countIndexed(directory: Inode): number {
  const bytes = linearBytes(directory);
  const leaves = Math.ceil(bytes / (LEAF_BYTES - bytes / directory.children.length / 2));
  return leaves + Math.ceil(leaves / NODE.most) + 1;
}

/**
 * Orders the names of a directory by their hashes and shares them out among blocks.
 * @throws ROOTFS_UNSUPPORTED for over 258,570 blocks of names
 */
export function planIndexed(
  directory: Inode,
  numbers: ReadonlyMap<Inode, number>,
  hash: NameHash,
  more: readonly IndexedEntry[],
): IndexedDirectory {
  const own = directory.children.map(({ name, inode }) => ({
    name,
    inode: numbers.get(inode)!,
    type: ENTRY_TYPES[inode.node.kind],
  }));
  const hashed = [...more, ...own].map((entry) => ({ entry, ...hashName(entry.name, hash) }));
  hashed.sort((a, b) => a.major - b.major || a.minor - b.minor || (a.entry.name < b.entry.name ? -1 : 1));
  const leaves: Leaf[] = [];
  let used = 0;
  for (const [index, { entry, major }] of hashed.entries()) {
    const bytes = entryBytes(entry.name);
    const last = leaves.at(-1);
    if (last !== undefined && used + bytes <= LEAF_BYTES) {
      leaves[leaves.length - 1] = { ...last, to: index + 1 };
      used += bytes;
      continue;
    }
    const goesOn = index > 0 && hashed[index - 1]!.major === major;
    leaves.push({ hash: goesOn ? major + 1 : major, from: index, to: index + 1 });
    used = bytes;
  }
  if (leaves.length > ROOT.most * NODE.most) {
    throw unsupported(pathOf(directory), `has ${hashed.length} names, too many for one directory of ext4`);
  }
  const nodes = countNodes(leaves);
  return { blocks: 1 + nodes + leaves.length, entries: hashed.map(({ entry }) => entry), leaves };
}

/** Blocks of pointers between the root and the leaves. */
function countNodes(leaves: readonly Leaf[]): number {
  return leaves.length > ROOT.most ? Math.ceil(leaves.length / NODE.most) : 0;
}

/** The register that checksums of an inode's blocks start from. */
export function checksumSeed(uuid: Uint8Array, inode: number, generation: number): number {
  const numbers = Buffer.alloc(8);
  numbers.writeUInt32LE(inode, 0);
  numbers.writeUInt32LE(generation, 4);
  return crc32c(numbers, crc32c(uuid));
}

/** The blocks of a directory in their order, each in the same buffer. */
export function* encodeIndexed(
  { entries, leaves }: IndexedDirectory,
  self: number,
  parent: number,
  seed: number,
): Generator<Uint8Array, void, undefined> {
  const block = Buffer.alloc(BLOCK_BYTES);
  const nodes = countNodes(leaves);
  const leafPointers = leaves.map(({ hash }, i) => ({ hash, block: 1 + nodes + i }));
  const groups = Array.from({ length: nodes }, (_, i) => leafPointers.slice(i * NODE.most, (i + 1) * NODE.most));

  encodeEntry(block, 0, 12, { name: '.', inode: self, type: ENTRY_TYPES.directory });
  encodeEntry(block, 12, BLOCK_BYTES - 12, { name: '..', inode: parent, type: ENTRY_TYPES.directory });
  block.set([HALF_MD4, 8, nodes > 0 ? 1 : 0, 0], ROOT.infoAt + 4);
  const top = nodes > 0 ? groups.map(([first], i) => ({ hash: first!.hash, block: 1 + i })) : leafPointers;
  encodePointers(block, ROOT, top, seed);
  yield block;
  for (const group of groups) {
    block.fill(0);
    block.writeUInt16LE(BLOCK_BYTES, 4);
    encodePointers(block, NODE, group, seed);
    yield block;
  }
  for (const { from, to } of leaves) {
    block.fill(0);
    let at = 0;
    for (let i = from; i < to; i++) {
      const bytes = i === to - 1 ? LEAF_BYTES - at : entryBytes(entries[i]!.name);
      encodeEntry(block, at, bytes, entries[i]!);
      at += bytes;
    }
    block.writeUInt16LE(BLOCK_BYTES - LEAF_BYTES, LEAF_BYTES + 4);
    block[LEAF_BYTES + 7] = CHECKSUM_TYPE;
    block.writeUInt32LE(crc32c(block.subarray(0, LEAF_BYTES), seed), LEAF_BYTES + 8);
    yield block;
  }
}

function encodeEntry(block: Buffer, at: number, bytes: number, { name, inode, type }: IndexedEntry): void {
  block.writeUInt32LE(inode, at);
  block.writeUInt16LE(bytes, at + 4);
  block[at + 6] = name.length;
  block[at + 7] = type;
  block.write(name, at + ENTRY_BYTES, 'latin1');
}

function encodePointers(
  block: Buffer,
  { pointersAt, most }: { readonly pointersAt: number; readonly most: number },
  pointers: readonly { readonly hash: number; readonly block: number }[],
  seed: number,
): void {
  for (const [i, pointer] of pointers.entries()) {
    block.writeUInt32LE(pointer.hash, pointersAt + i * POINTER_BYTES);
    block.writeUInt32LE(pointer.block, pointersAt + i * POINTER_BYTES + 4);
  }
  // In place of the lowest hash of the first pointer, which is nothing.
  block.writeUInt16LE(most, pointersAt);
  block.writeUInt16LE(pointers.length, pointersAt + 2);
  const used = crc32c(block.subarray(0, pointersAt + pointers.length * POINTER_BYTES), seed);
  block.writeUInt32LE(crc32c(new Uint8Array(8), used), CHECKSUM_AT + 4);
}
