import { roundUp } from '@decant/core';

import type { Cooperation } from './cooperate.ts';
import { shapeDirectory, type DirectoryShape } from './directory-blocks.ts';
import {
  BLOCK_BYTES,
  INODE_BYTES,
  LAYOUT_CHUNKS,
  LAYOUT_INLINE,
  LAYOUT_PLAIN,
  NID_BYTES,
  NULL_BLOCK,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSET,
} from './erofs-format.ts';
import { planStorage } from './file-storage.ts';
import { inSubtreeOrder, pathOf, unsupported, type Child, type Inode } from './inventory.ts';
import { planSharedXattrs, type SharedXattrs } from './shared-xattrs.ts';
import type { ByteString, FileNode } from './tree.ts';
import { encodeXattrs } from './xattr-area.ts';

/** Where one inode and what belongs to it lie in the image. */
export interface PlacedInode {
  readonly inode: Inode;
  readonly xattrs: Uint8Array;
  readonly sizeBytes: number;
  readonly layout: number;
  /** Byte offset in the image; a multiple of 32. */
  readonly offset: number;
  /** First block of its own: of directory or link data, or of stored file runs; NULL_BLOCK for none. */
  firstBlock: number;
  readonly shape: DirectoryShape | undefined;
  /** Of a file with holes: log2 of the pages per chunk. */
  readonly chunkPageBits: number | undefined;
  /** Stored pages of a file. */
  readonly pages: number;
}

export interface PlacedFile extends PlacedInode {
  readonly inode: Inode & { readonly node: FileNode };
}

export interface MetadataLayout {
  /** Indexed like the inventory's inodes. */
  readonly placed: readonly PlacedInode[];
  /** Blocks of the whole metadata zone, the superblock's included. */
  readonly blocks: number;
  /** First block of the shared extended attributes; 0 when there are none. */
  readonly sharedBlock: number;
  readonly sharedXattrs: Uint8Array;
}

export function nidOf(placed: PlacedInode): number {
  return placed.offset / NID_BYTES;
}

/**
 * Lays out the metadata zone: superblock, inodes subtree by subtree with their xattrs, chunk maps, short directories and
 * links behind them, then the whole blocks of long directories, then the shared xattrs. No file data, so that an edit of a
 * file moves nothing here.
 */
export async function layOutMetadata(inodes: readonly Inode[], cooperation: Cooperation): Promise<MetadataLayout> {
  let at = SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES;
  const placed = Array.from<PlacedInode>({ length: inodes.length });
  const order: Inode[] = [];
  const refuseFor = (inode: Inode) => (what: string) => unsupported(pathOf(inode), what);
  const shared = planSharedXattrs(inodes, refuseFor);
  for (const inode of inSubtreeOrder(inodes[0]!)) {
    await cooperation.step();
    order.push(inode);
    const one = place(inode, at, shared);
    placed[inode.index] = one.placed;
    at = one.end;
  }
  let blocks = Math.ceil(at / BLOCK_BYTES);
  for (const { index } of order) {
    const one = placed[index]!;
    const count = metadataBlocksOf(one);
    if (count === 0) continue;
    one.firstBlock = blocks;
    blocks += count;
  }
  // On a block of its own and last, so that no reference changes when the tree grows.
  const sharedBlock = shared.area.length === 0 ? 0 : blocks;
  blocks += Math.ceil(shared.area.length / BLOCK_BYTES);
  return { placed, blocks, sharedBlock, sharedXattrs: shared.area };
}

/** Whole blocks of directory or link data that do not lie behind the inode. */
export function metadataBlocksOf({ inode, layout, sizeBytes }: PlacedInode): number {
  if (inode.node.kind !== 'directory' && inode.node.kind !== 'symlink') return 0;
  return layout === LAYOUT_INLINE ? Math.floor(sizeBytes / BLOCK_BYTES) : Math.ceil(sizeBytes / BLOCK_BYTES);
}

function place(inode: Inode, from: number, shared: SharedXattrs): { placed: PlacedInode; end: number } {
  const { node } = inode;
  const xattrs = encodeXattrs(node.meta.xattrs, shared, (what) => unsupported(pathOf(inode), what));
  const headBytes = INODE_BYTES + xattrs.length;
  const shape = node.kind === 'directory' ? shapeDirectory(listing(inode).map(({ name }) => name)) : undefined;
  const storage = node.kind === 'file' ? planStorage(node) : undefined;
  let sizeBytes = shape?.sizeBytes ?? 0;
  if (node.kind === 'symlink') sizeBytes = node.target.length;
  if (node.kind === 'file') sizeBytes = node.sizeBytes;

  let offset = roundUp(from, NID_BYTES);
  if ((offset % BLOCK_BYTES) + INODE_BYTES > BLOCK_BYTES) offset = roundUp(offset, BLOCK_BYTES);
  const chunkPageBits = storage?.chunkPageBits;
  let layout = chunkPageBits === undefined ? LAYOUT_PLAIN : LAYOUT_CHUNKS;
  let behindBytes = 0;
  const tailBytes = node.kind === 'directory' || node.kind === 'symlink' ? sizeBytes % BLOCK_BYTES : 0;
  if (tailBytes > 0) {
    // An inline tail must not cross a block boundary.
    const fits = (start: number) => ((start + headBytes) % BLOCK_BYTES) + tailBytes <= BLOCK_BYTES;
    const nextBlock = roundUp(offset, BLOCK_BYTES);
    if (fits(offset) || fits(nextBlock)) {
      layout = LAYOUT_INLINE;
      behindBytes = tailBytes;
      if (!fits(offset)) offset = nextBlock;
    }
  }
  if (chunkPageBits !== undefined) behindBytes = 4 * chunkCount(sizeBytes, chunkPageBits);
  const pages = storage?.pages ?? 0;
  // The runs of a file are found again when they are written: kept for every file, they take more than all the rest.
  const placed = { inode, xattrs, sizeBytes, layout, offset, firstBlock: NULL_BLOCK, shape, chunkPageBits, pages };
  return { placed, end: offset + headBytes + behindBytes };
}

export function chunkCount(sizeBytes: number, chunkPageBits: number): number {
  return Math.ceil(sizeBytes / (BLOCK_BYTES * 2 ** chunkPageBits));
}

/** All entries of a directory in EROFS's order: bytewise, with `.` and `..` where they fall. */
export function listing(directory: Inode): readonly Child[] {
  const dot: ByteString = '.';
  const self = { name: dot, inode: directory };
  const parent = { name: `${dot}.`, inode: directory.parent ?? directory };
  return [self, parent, ...directory.children].sort((a, b) => (a.name < b.name ? -1 : 1));
}
