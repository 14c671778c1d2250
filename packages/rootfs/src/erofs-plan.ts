import type { ImagePiece } from '@decant/cas';
import { DecantError, formatBytes, MIB } from '@decant/core';

import { Cooperation } from './cooperate.ts';
import { encodeInode, encodeSuperblock } from './erofs-encode.ts';
import { BLOCK_BYTES, LAYOUT_CHUNKS } from './erofs-format.ts';
import { layOutMetadata, nidOf, type PlacedFile } from './erofs-layout.ts';
import { DataFiles } from './data-files.ts';
import { writePieces } from './erofs-pieces.ts';
import { orderFiles, sectionAfter } from './file-order.ts';
import { findOwners } from './file-owners.ts';
import { takeInventory } from './inventory.ts';
import type { DirectoryNode } from './tree.ts';

/** What the writer needs of a hash provider; `@decant/cas` has ones that fit. */
export interface ContentHasher {
  /** BLAKE3-256 of the bytes: 32 bytes. */
  blake3(bytes: Uint8Array): Uint8Array;
}

export interface PlanErofsOptions {
  readonly hash: ContentHasher;
  /** Seconds since 1970: later modification times are stored as this one. Default: none is changed. */
  readonly sourceDateEpoch?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An EROFS image that is laid out but not written. */
export interface ErofsPlan {
  /** Of the image: a multiple of 4,096. */
  readonly sizeBytes: number;
  readonly inodeCount: number;
  /** Bytes from the start that hold everything but file data. */
  readonly metadataBytes: number;
  /** The image from its first byte to its last; it keeps the files of the tree and nothing else of it. May be called again as long as the tree's blobs can be read. */
  pieces(options?: { readonly signal?: AbortSignal | undefined }): AsyncGenerator<ImagePiece, void, undefined>;
}

/** Block numbers are u32 and the last one means "no block". */
const MOST_BLOCKS = 2 ** 32 - 2;

/**
 * Lays a tree out as an EROFS image (Linux 5.16 and later): metadata, then sections of file data with holes between them.
 * Large files begin with a cut, and small ones lie in groups that do (docs/formats/erofs.md). Equal trees give equal bytes.
 * Reads dpkg's lists in the tree, and holds the metadata zone in memory (about 100 bytes per inode).
 * @throws ROOTFS_UNSUPPORTED when the tree has something that EROFS cannot hold, or is over 16 TiB
 */
export async function planErofs(root: DirectoryNode, options: PlanErofsOptions): Promise<ErofsPlan> {
  // In a function of its own: whatever one function here refers to, its neighbours would keep in memory.
  const { zone, files, ...facts } = await layOut(root, options);
  return { ...facts, pieces: (pieceOptions = {}) => writePieces(zone, files, pieceOptions) };
}

interface LaidOut extends Omit<ErofsPlan, 'pieces'> {
  readonly zone: Uint8Array;
  readonly files: DataFiles;
}

async function layOut(root: DirectoryNode, options: PlanErofsOptions): Promise<LaidOut> {
  const { hash, signal, sourceDateEpoch } = options;
  signal?.throwIfAborted();
  const cooperation = new Cooperation(2000, signal);
  const inventory = await takeInventory(root, cooperation);
  const layout = await layOutMetadata(inventory.inodes, cooperation);
  const files = inventory.files.map((inode) => layout.placed[inode.index] as PlacedFile);
  refuseBeyondEnd(files.reduce((sum, { pages }) => sum + pages, layout.blocks));
  const owners = await findOwners(root, cooperation);
  const sections = await orderFiles(files, { owners, fractions: (file) => fractionsOf(file, hash), cooperation });

  let blocks = layout.blocks;
  const data = new DataFiles(sections.reduce((sum, { items }) => sum + items.length, 0));
  for (const [i, section] of sections.entries()) {
    if (i > 0) blocks = sectionAfter(blocks);
    for (const { placed, cut, cutEveryPages } of section.items) {
      placed.firstBlock = blocks;
      data.add(placed.inode.node, { firstBlock: blocks, cut, cutEveryPages });
      blocks += placed.pages;
    }
  }
  refuseBeyondEnd(blocks);

  const zone = Buffer.alloc(layout.blocks * BLOCK_BYTES);
  for (const placed of layout.placed) {
    await cooperation.step();
    encodeInode(placed, layout, sourceDateEpoch, zone);
  }
  zone.set(layout.sharedXattrs, layout.sharedBlock * BLOCK_BYTES);
  const image = {
    rootNid: nidOf(layout.placed[0]!),
    inodes: layout.placed.length,
    blocks,
    sharedBlock: layout.sharedBlock,
    chunked: layout.placed.some((placed) => placed.layout === LAYOUT_CHUNKS),
  };
  encodeSuperblock(zone, image, (bytes) => uuidOf(bytes, hash));
  return {
    sizeBytes: blocks * BLOCK_BYTES,
    inodeCount: layout.placed.length,
    metadataBytes: zone.length,
    zone,
    files: data,
  };
}

function refuseBeyondEnd(blocks: number): void {
  if (blocks <= MOST_BLOCKS) return;
  const size = formatBytes(blocks * BLOCK_BYTES);
  throw new DecantError('ROOTFS_UNSUPPORTED', `The tree needs an image of ${size}, and EROFS ends at 16 TiB.`);
}

/** Two numbers in [0, 1) from the name of a file and of its directory: the same wherever that directory lies. */
function fractionsOf({ inode }: PlacedFile, hash: ContentHasher): readonly [number, number] {
  const digest = Buffer.from(hash.blake3(Buffer.from(`${inode.parent?.name ?? ''}/${inode.name}`, 'latin1')));
  return [digest.readUInt32LE(0) / 2 ** 32, digest.readUInt32LE(4) / 2 ** 32];
}

/** A version 8 UUID (RFC 9562) from the metadata zone, which also says how large every file is and where it lies. */
function uuidOf(zone: Uint8Array, hash: ContentHasher): Uint8Array {
  const digests: Uint8Array[] = [];
  for (let at = 0; at < zone.length; at += MIB) digests.push(hash.blake3(zone.subarray(at, at + MIB)));
  const uuid = hash.blake3(Buffer.concat(digests)).slice(0, 16);
  uuid[6] = (uuid[6]! & 0x0f) | 0x80;
  uuid[8] = (uuid[8]! & 0x3f) | 0x80;
  return uuid;
}
