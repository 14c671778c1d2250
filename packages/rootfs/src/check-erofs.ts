import { open } from 'node:fs/promises';
import { join } from 'node:path';

import type { RandomAccess } from '@decant/cas';
import { DecantError, isDecantError, MIB } from '@decant/core';

import { BLOCK_BYTES } from './erofs-format.ts';
import { scanErofs, type ErofsFacts, type ReadErofsOptions } from './erofs-read.ts';
import { privateFolder } from './private-folder.ts';
import { lastLines, type RunTool } from './run-tool.ts';

export interface CheckErofsOptions extends ReadErofsOptions {
  /** How `fsck.erofs` is started. */
  readonly runTool: RunTool;
  /** Where the sparse copy of the metadata goes; default: the system's folder for temporary files. */
  readonly tempDir?: string | undefined;
}

export interface ErofsCheck {
  /** Whether `fsck.erofs` agreed, or could not be asked because it is not installed. */
  readonly tool: 'passed' | 'missing';
}

/**
 * The strict reader and then `fsck.erofs`, on a sparse file that holds only the metadata blocks that the strict
 * reader saw: without `--extract`, the tool reads no data of uncompressed files.
 * @throws ROOTFS_INVALID (with `details.offset`, or the tool's last lines), ROOTFS_UNSUPPORTED, LIMIT_EXCEEDED
 */
export async function checkErofs(source: RandomAccess, options: CheckErofsOptions): Promise<ErofsCheck> {
  const { runTool, signal } = options;
  await using folder = await privateFolder(options.tempDir);
  const path = join(folder.path, 'metadata.erofs');
  await copyMetadata(source, await scanErofs(source, options), path, signal);
  try {
    const result = await runTool('fsck.erofs', [path], { readable: [path], signal });
    if (result.exitCode !== 0) {
      throw new DecantError('ROOTFS_INVALID', `fsck.erofs finds the filesystem broken: ${lastLines(result)}`, {
        details: { exitCode: result.exitCode, lastLines: lastLines(result) },
      });
    }
    return { tool: 'passed' };
  } catch (error) {
    if (isDecantError(error, 'PROCESS_MISSING')) return { tool: 'missing' };
    throw error;
  }
}

const MOST_BLOCKS_AT_ONCE = MIB / BLOCK_BYTES;

async function copyMetadata(
  source: RandomAccess,
  image: ErofsFacts,
  path: string,
  signal?: AbortSignal,
): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  await file.truncate(image.sizeBytes);
  const blocks = image.metadataBlocks;
  for (let i = 0; i < blocks.length;) {
    const first = blocks[i]!;
    let count = 1;
    while (count < MOST_BLOCKS_AT_ONCE && blocks[i + count] === first + count) count++;
    const offset = first * BLOCK_BYTES;
    const bytes = await source.read(offset, count * BLOCK_BYTES, { signal });
    await file.write(bytes, 0, bytes.length, offset);
    i += count;
  }
}
