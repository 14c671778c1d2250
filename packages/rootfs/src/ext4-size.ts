import { MIB, PAGE_BYTES, roundUp } from '@decant/core';

import { shapeDirectory } from './directory-blocks.ts';
import { countIndexed, isIndexed } from './ext4-index.ts';
import { planStorage } from './file-storage.ts';
import type { Inode } from './inventory.ts';

const EXT4_INODE_BYTES = 256;
/** Links up to this are in the inode. */
const FAST_LINK_BYTES = 59;

/** Bytes of blocks and inodes that the tree needs in an ext4 filesystem, without bitmaps and descriptors. */
export function countExt4(inodes: readonly Inode[]): number {
  let pages = 0;
  for (const inode of inodes) {
    const { node, children } = inode;
    if (node.kind === 'file') pages += planStorage(node).pages;
    // A linear directory of ext4 takes about as much as one of EROFS: 8 bytes and padding against 12 per name.
    if (isIndexed(inode)) pages += countIndexed(inode);
    else if (node.kind === 'directory') pages += shapeDirectory(children.map(({ name }) => name)).namesPerBlock.length;
    if (node.kind === 'symlink' && node.target.length > FAST_LINK_BYTES) pages++;
    if (node.meta.xattrs.length > 0) pages++;
  }
  return pages * PAGE_BYTES + inodes.length * EXT4_INODE_BYTES;
}

/** The size of a filesystem for that much: 4 % and 4 MiB over it, the spread that was measured on real trees. */
export function ext4SizeFor(countedBytes: number): number {
  return roundUp(Math.ceil(countedBytes * 1.04) + 4 * MIB, PAGE_BYTES);
}
