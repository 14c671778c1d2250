import { encodeDirectoryBlock } from './directory-blocks.ts';
import {
  BLOCK_BYTES,
  CHUNK_BITS_MASK,
  COMPAT_CHECKSUM,
  COMPAT_MTIME,
  encodeDevice,
  ENTRY_TYPES,
  EROFS_MAGIC,
  INCOMPAT_CHUNKED_FILE,
  INODE_BYTES,
  LAYOUT_CHUNKS,
  LAYOUT_INLINE,
  MODE_TYPES,
  NULL_BLOCK,
  SUPERBLOCK_OFFSET,
  XATTR_HEADER_BYTES,
} from './erofs-format.ts';
import { crc32c } from './crc32c.ts';
import { chunkCount, listing, nidOf, type MetadataLayout, type PlacedInode } from './erofs-layout.ts';
import { pagesOf, planStorage } from './file-storage.ts';
import { storedTime } from './source-date.ts';
import type { FileNode } from './tree.ts';

/** Writes the inode with its xattrs, inline data, chunk map and directory blocks into the metadata zone. */
export function encodeInode(
  placed: PlacedInode,
  layout: MetadataLayout,
  latestSeconds: number | undefined,
  zone: Buffer,
): void {
  const { inode, offset: at, xattrs } = placed;
  const { node } = inode;
  const { meta } = node;
  zone.writeUInt16LE(1 | (placed.layout << 1), at);
  zone.writeUInt16LE(xattrs.length === 0 ? 0 : (xattrs.length - XATTR_HEADER_BYTES) / 4 + 1, at + 2);
  zone.writeUInt16LE(MODE_TYPES[node.kind] | meta.mode, at + 4);
  zone.writeBigUInt64LE(BigInt(placed.sizeBytes), at + 8);
  zone.writeUInt32LE(unionField(placed), at + 16);
  zone.writeUInt32LE(meta.uid, at + 24);
  zone.writeUInt32LE(meta.gid, at + 28);
  const time = storedTime(meta, latestSeconds);
  zone.writeBigInt64LE(BigInt(time.mtimeSeconds), at + 32);
  zone.writeUInt32LE(time.mtimeNanoseconds, at + 40);
  zone.writeUInt32LE(inode.links, at + 44);
  zone.set(xattrs, at + INODE_BYTES);
  const behind = at + INODE_BYTES + xattrs.length;
  if (node.kind === 'directory') encodeDirectory(placed, layout, behind, zone);
  else if (node.kind === 'symlink') {
    const inline = placed.layout === LAYOUT_INLINE;
    zone.write(node.target, inline ? behind : placed.firstBlock * BLOCK_BYTES, 'latin1');
  } else if (node.kind === 'file' && placed.layout === LAYOUT_CHUNKS) encodeChunkMap(placed, node, behind, zone);
}

function unionField({ inode, layout, firstBlock, chunkPageBits }: PlacedInode): number {
  const { node } = inode;
  if (node.kind === 'character-device' || node.kind === 'block-device') return encodeDevice(node.major, node.minor);
  if (layout === LAYOUT_CHUNKS) return chunkPageBits! & CHUNK_BITS_MASK;
  return node.kind === 'fifo' || node.kind === 'socket' ? 0 : firstBlock;
}

function encodeDirectory(placed: PlacedInode, layout: MetadataLayout, behind: number, zone: Buffer): void {
  const entries = listing(placed.inode).map(({ name, inode }) => ({
    name,
    nid: nidOf(layout.placed[inode.index]!),
    type: ENTRY_TYPES[inode.node.kind],
  }));
  const counts = placed.shape!.namesPerBlock;
  let next = 0;
  for (const [i, count] of counts.entries()) {
    const inline = placed.layout === LAYOUT_INLINE && i === counts.length - 1;
    const start = inline ? behind : (placed.firstBlock + i) * BLOCK_BYTES;
    encodeDirectoryBlock(entries.slice(next, next + count), zone.subarray(start));
    next += count;
  }
}

function encodeChunkMap({ sizeBytes, firstBlock }: PlacedInode, node: FileNode, at: number, zone: Buffer): void {
  const { chunkPageBits = 0, runs } = planStorage(node);
  const chunkPages = 2 ** chunkPageBits;
  const chunks = chunkCount(sizeBytes, chunkPageBits);
  for (let i = 0; i < chunks; i++) zone.writeUInt32LE(NULL_BLOCK, at + 4 * i);
  let block = firstBlock;
  for (const run of runs) {
    const firstChunk = run.fileOffset / (chunkPages * BLOCK_BYTES);
    const pages = pagesOf(run);
    for (let i = 0; i * chunkPages < pages; i++) {
      zone.writeUInt32LE(block + i * chunkPages, at + 4 * (firstChunk + i));
    }
    block += pages;
  }
}

/** Writes the superblock; its checksum covers the rest of block 0, so this comes last. */
export function encodeSuperblock(
  zone: Buffer,
  image: { rootNid: number; inodes: number; blocks: number; sharedBlock: number; chunked: boolean },
  makeUuid: (zone: Buffer) => Uint8Array,
): void {
  const at = SUPERBLOCK_OFFSET;
  zone.writeUInt32LE(EROFS_MAGIC, at);
  zone.writeUInt32LE(COMPAT_CHECKSUM | COMPAT_MTIME, at + 8);
  zone[at + 12] = Math.log2(BLOCK_BYTES);
  zone.writeUInt16LE(image.rootNid, at + 14);
  zone.writeBigUInt64LE(BigInt(image.inodes), at + 16);
  zone.writeUInt32LE(image.blocks, at + 36);
  zone.writeUInt32LE(image.sharedBlock, at + 44);
  zone.writeUInt32LE(image.chunked ? INCOMPAT_CHUNKED_FILE : 0, at + 80);
  zone.set(makeUuid(zone), at + 48);
  zone.writeUInt32LE(crc32c(zone.subarray(at, BLOCK_BYTES)), at + 4);
}
