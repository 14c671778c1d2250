import { open, type FileHandle } from 'node:fs/promises';

import { DecantError, GIB, PAGE_BYTES } from '@decant/core';

import { Budget } from './budget.ts';
import { ENTRY_TYPES } from './erofs-format.ts';
import {
  checksumSeed,
  encodeIndexed,
  HALF_MD4,
  isIndexed,
  planIndexed,
  type IndexedDirectory,
  type IndexedEntry,
} from './ext4-index.ts';
import { readExt4Inode } from './ext4-inode.ts';
import type { NameHash } from './ext4-name-hash.ts';
import { readExt4Layout } from './ext4-read.ts';
import { LOST_FOUND, LOST_FOUND_INODE, numberInodes } from './ext4-script.ts';
import type { Inode, Inventory } from './inventory.ts';
import { MetadataReader } from './metadata-reader.ts';

const SUPERBLOCK = { offset: 1024, bytes: 1024, uuidAt: 0x68, seedAt: 0xec, hashAt: 0xfc, flagsAt: 0x160 } as const;
const SIGNED_HASH = 0x1;

/**
 * The large directories of a tree on their way into an ext4 image. debugfs walks a directory for every name that it adds, which
 * takes time in the square of the names; so it only allocates the blocks, and these are written here when it is done.
 */
export class IndexedDirectories {
  readonly #numbers: ReadonlyMap<Inode, number>;
  readonly #planned = new Map<Inode, IndexedDirectory>();
  readonly #uuid: Uint8Array;

  private constructor(inventory: Inventory, superblock: Buffer) {
    this.#numbers = numberInodes(inventory.inodes);
    this.#uuid = superblock.subarray(SUPERBLOCK.uuidAt, SUPERBLOCK.uuidAt + 16);
    const hash: NameHash = {
      seed: [0, 4, 8, 12].map((at) => superblock.readUInt32LE(SUPERBLOCK.seedAt + at)) as [
        number,
        number,
        number,
        number,
      ],
      signed: (superblock.readUInt32LE(SUPERBLOCK.flagsAt) & SIGNED_HASH) !== 0,
    };
    for (const inode of inventory.inodes) {
      if (!isIndexed(inode)) continue;
      if (superblock[SUPERBLOCK.hashAt] !== HALF_MD4) {
        throw new DecantError('INTERNAL', 'mkfs.ext4 made a filesystem that hashes names in another way than asked.');
      }
      // mkfs.ext4 made it, whether the tree has it or not.
      const isBare = inode.parent === undefined && !inode.children.some(({ name }) => name === LOST_FOUND);
      const more: readonly IndexedEntry[] = isBare
        ? [{ name: LOST_FOUND, inode: LOST_FOUND_INODE, type: ENTRY_TYPES.directory }]
        : [];
      this.#planned.set(inode, planIndexed(inode, this.#numbers, hash, more));
    }
  }

  /** Plans the blocks of all large directories for a filesystem that mkfs.ext4 just made. */
  static async plan(inventory: Inventory, image: string): Promise<IndexedDirectories> {
    const superblock = Buffer.alloc(SUPERBLOCK.bytes);
    await using file = await open(image, 'r');
    await file.read(superblock, 0, SUPERBLOCK.bytes, SUPERBLOCK.offset);
    return new IndexedDirectories(inventory, superblock);
  }

  /** How many blocks the directory must get; undefined when debugfs writes its names. */
  blocksOf(directory: Inode): number | undefined {
    return this.#planned.get(directory)?.blocks;
  }

  /** Writes the blocks of all large directories, which debugfs has allocated by now. */
  async write(image: string, signal: AbortSignal | undefined): Promise<void> {
    if (this.#planned.size === 0) return;
    await using file = await open(image, 'r+');
    for (const [directory, plan] of this.#planned) {
      signal?.throwIfAborted();
      await this.#writeOne(file, directory, plan);
    }
  }

  async #writeOne(file: FileHandle, directory: Inode, plan: IndexedDirectory): Promise<void> {
    const self = this.#numbers.get(directory)!;
    const parent = this.#numbers.get(directory.parent ?? directory)!;
    const { generation, sizeBytes, places } = await placesOf(file, self);
    if (sizeBytes !== plan.blocks * PAGE_BYTES) {
      throw new DecantError(
        'INTERNAL',
        `debugfs made the directory ${self} of ${sizeBytes} bytes, not ${plan.blocks} blocks.`,
      );
    }
    for (const block of encodeIndexed(plan, self, parent, checksumSeed(this.#uuid, self, generation))) {
      await file.write(block, 0, block.length, places.next().value);
    }
  }
}

/** Where the blocks of a directory lie in the image. */
async function placesOf(file: FileHandle, number: number) {
  const { size } = await file.stat();
  const source = {
    sizeBytes: size,
    read: async (offset: number, lengthBytes: number) => {
      const bytes = new Uint8Array(lengthBytes);
      await file.read(bytes, 0, lengthBytes, offset);
      return bytes;
    },
  };
  const reader = new MetadataReader(source, GIB, undefined);
  const layout = await readExt4Layout(reader, size);
  const budgets = { xattrBytes: new Budget(PAGE_BYTES, 'bytes'), ranges: new Budget(4_000_000, 'runs of data') };
  const { generation, sizeBytes, ranges } = await readExt4Inode(reader, layout, budgets, number);
  function* places(): Generator<number, undefined, undefined> {
    for (const { imageOffset, lengthBytes } of ranges) {
      for (let done = 0; done < lengthBytes; done += PAGE_BYTES) yield imageOffset + done;
    }
  }
  return { generation, sizeBytes, places: places() };
}
