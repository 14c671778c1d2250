import { open, rm } from 'node:fs/promises';
import { resolve } from 'node:path';

import { DecantError, errnoOf, formatBytes, PAGE_BYTES, roundUp, toDecantError } from '@decant/core';

import { Cooperation } from './cooperate.ts';
import { Ext4Filler } from './ext4-filler.ts';
import { countExt4, ext4SizeFor } from './ext4-size.ts';
import { ext4Commands } from './ext4-script.ts';
import { takeInventory, type Inventory } from './inventory.ts';
import { privateFolder } from './private-folder.ts';
import type { RunTool } from './run-tool.ts';
import type { DirectoryNode } from './tree.ts';

export interface WriteExt4Options {
  /** A file that does not exist yet. It is removed again when writing fails. */
  readonly outFile: string;
  /** Size of the filesystem in bytes, rounded down to 4,096; default: what the tree needs and a little more. */
  readonly diskBytes?: number | undefined;
  /** Up to 16 bytes of printable ASCII; default none. */
  readonly label?: string | undefined;
  /** Default: derived from the names and metadata of the tree. */
  readonly uuid?: string | undefined;
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
}

const MOST_TRIES = 8;

/**
 * Writes a tree as a raw ext4 image without root and without mounting: an empty filesystem of `mkfs.ext4`, filled by
 * `debugfs`. Equal trees give equal bytes (with equal versions of the tools). No journal.
 * @throws ROOTFS_UNSUPPORTED for what ext4 or debugfs cannot hold, ROOTFS_NO_SPACE when `diskBytes` is too small,
 * PROCESS_MISSING without e2fsprogs, DISK_FULL
 */
export async function writeExt4(root: DirectoryNode, options: WriteExt4Options): Promise<Ext4Written> {
  const { signal, diskBytes } = options;
  signal?.throwIfAborted();
  checkOptions(options);
  const inventory = await takeInventory(root, new Cooperation(2000, signal));
  checkLostFound(root);
  const contentBytes = countExt4(inventory.inodes);
  let sizeBytes = diskBytes === undefined ? ext4SizeFor(contentBytes) : diskBytes - (diskBytes % PAGE_BYTES);
  if (sizeBytes < contentBytes) throw noSpace(sizeBytes, contentBytes);
  for (let attempt = 1; ; attempt++) {
    const made = await writeOnce(inventory, sizeBytes, options);
    if (made === 'written') return { sizeBytes, contentBytes };
    if (diskBytes !== undefined || attempt === MOST_TRIES) throw noSpace(sizeBytes, contentBytes);
    sizeBytes = roundUp(Math.ceil(sizeBytes * 1.05), PAGE_BYTES);
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function checkOptions({ label = '', uuid, diskBytes }: WriteExt4Options): void {
  if (!/^[\x20-\x7e]{0,16}$/.test(label)) {
    throw new DecantError('USAGE', 'A label of an ext4 filesystem is up to 16 printable ASCII characters.');
  }
  if (uuid !== undefined && !UUID.test(uuid)) throw new DecantError('USAGE', 'The UUID is not one.');
  if (diskBytes !== undefined && !(Number.isSafeInteger(diskBytes) && diskBytes > 0)) {
    throw new DecantError('USAGE', 'A disk size is a positive number of bytes.');
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
): Promise<'written' | 'no-space'> {
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
    if (!(await filler.flush())) return 'no-space';
    done = true;
    return 'written';
  } catch (error) {
    throw errnoOf(error) === undefined ? error : toDecantError(error);
  } finally {
    await file.close();
    if (!done) await rm(outFile, { force: true });
  }
}
