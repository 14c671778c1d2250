import { open, rm } from 'node:fs/promises';
import { resolve } from 'node:path';

import { DecantError, errnoOf, formatBytes, PAGE_BYTES, roundUp, toDecantError } from '@decant/core';

import { Cooperation } from './cooperate.ts';
import { Ext4Filler } from './ext4-filler.ts';
import { countExt4, ext4SizeFor } from './ext4-size.ts';
import { checkExt4Options, type Ext4Options } from './ext4-options.ts';
import { ext4Commands } from './ext4-script.ts';
import { takeInventory, type Inventory } from './inventory.ts';
import { privateFolder } from './private-folder.ts';
import type { RunTool } from './run-tool.ts';
import type { DirectoryNode } from './tree.ts';

export interface WriteExt4Options extends Ext4Options {
  /** A file that does not exist yet. It is removed again when writing fails. */
  readonly outFile: string;
  /** Seconds since 1970: later modification times are stored as this one. Default: none is changed. */
  readonly sourceDateEpoch?: number | undefined;
  /** How `mkfs.ext4` and `debugfs` are started; default: without confinement. */
  readonly runTool?: RunTool | undefined;
  /** Where file data waits for debugfs, 128 MiB or one file at a time; default: the system's temporary folder. */
  readonly tempDir?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Ext4Written {
  /** Of the (sparse) file. */
  readonly sizeBytes: number;
  /** Blocks and inodes that the tree takes. */
  readonly contentBytes: number;
  /** Blocks that no file has: what a user of the mounted filesystem may still write. */
  readonly freeBytes: number;
  /** How often it was written until the tree and the free room fitted. */
  readonly tries: number;
}

const MOST_TRIES = 8;
/** Its length, and where it begins. */
const SUPERBLOCK_BYTES = 1024;

/**
 * Writes a tree as a raw ext4 image without root and without mounting: an empty filesystem of `mkfs.ext4`, filled by
 * `debugfs`. Equal trees give equal bytes (with equal versions of the tools). No journal.
 * @throws ROOTFS_UNSUPPORTED for what ext4 or debugfs cannot hold, ROOTFS_NO_SPACE when `diskBytes` is too small,
 * PROCESS_MISSING without e2fsprogs, DISK_FULL
 */
export async function writeExt4(root: DirectoryNode, options: WriteExt4Options): Promise<Ext4Written> {
  const { signal, diskBytes, freeBytes = 0 } = options;
  signal?.throwIfAborted();
  checkExt4Options(options);
  const inventory = await takeInventory(root, new Cooperation(2000, signal));
  checkLostFound(root);
  const contentBytes = countExt4(inventory.inodes);
  let sizeBytes =
    diskBytes === undefined ? ext4SizeFor(contentBytes + freeBytes) : diskBytes - (diskBytes % PAGE_BYTES);
  if (sizeBytes < contentBytes) throw noSpace(sizeBytes, contentBytes);
  for (let tries = 1; ; tries++) {
    const made = await writeOnce(inventory, sizeBytes, options);
    if (made !== 'no-space') return { sizeBytes, contentBytes, freeBytes: made.freeBytes, tries };
    if (diskBytes !== undefined || tries === MOST_TRIES) throw noSpace(sizeBytes, contentBytes + freeBytes);
    sizeBytes = roundUp(Math.ceil(sizeBytes * 1.05), PAGE_BYTES);
  }
}

function noSpace(sizeBytes: number, contentBytes: number): DecantError {
  const needed = ext4SizeFor(contentBytes);
  return new DecantError(
    'ROOTFS_NO_SPACE',
    `The tree does not fit into an ext4 filesystem of ${formatBytes(sizeBytes)}.`,
    {
      hint: `Ask for a disk of at least ${formatBytes(needed)}.`,
      details: { sizeBytes, contentBytes, neededBytes: needed },
    },
  );
}

function checkLostFound(root: DirectoryNode): void {
  const existing = root.entries.get('lost+found');
  if (existing === undefined || existing.kind === 'directory') return;
  throw new DecantError('ROOTFS_UNSUPPORTED', '"/lost+found" is not a directory, and ext4 needs it to be one.', {
    details: { path: '/lost+found' },
  });
}

async function writeOnce(
  inventory: Inventory,
  sizeBytes: number,
  options: WriteExt4Options,
): Promise<{ readonly freeBytes: number } | 'no-space'> {
  const outFile = resolve(options.outFile);
  await using folder = await privateFolder(options.tempDir);
  const file = await open(outFile, 'wx', 0o600);
  let done = false;
  try {
    await file.truncate(sizeBytes);
    await file.close();
    const filler = new Ext4Filler(outFile, folder.path, options);
    if (!(await filler.format(inventory, sizeBytes))) return 'no-space';
    for await (const command of ext4Commands(inventory.inodes, filler.staging)) {
      if (!(await filler.add(command))) return 'no-space';
    }
    if (!(await filler.finish())) return 'no-space';
    const freeBytes = await readFreeBytes(outFile);
    if (freeBytes < (options.freeBytes ?? 0)) return 'no-space';
    done = true;
    return { freeBytes };
  } catch (error) {
    throw errnoOf(error) === undefined ? error : toDecantError(error);
  } finally {
    await file.close();
    if (!done) await rm(outFile, { force: true });
  }
}

/** What the superblock says: 32 bits at 12 and, with the 64bit feature, 32 more at 344 (`struct ext4_super_block`). */
async function readFreeBytes(path: string): Promise<number> {
  await using file = await open(path, 'r');
  const superblock = Buffer.alloc(SUPERBLOCK_BYTES);
  await file.read(superblock, 0, SUPERBLOCK_BYTES, SUPERBLOCK_BYTES);
  return (superblock.readUInt32LE(12) + superblock.readUInt32LE(344) * 2 ** 32) * PAGE_BYTES;
}
