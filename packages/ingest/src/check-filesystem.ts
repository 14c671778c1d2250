import { mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type { Manifest, RandomAccess } from '@decant/cas';
import { MIB, PAGE_BYTES } from '@decant/core';
import { writeAt } from '@decant/core/node';
import { runConfinedTool } from '@decant/jail';
import { checkErofs, checkExt4, type RunTool } from '@decant/rootfs';

import type { IngestContext } from './admission.ts';

/** Bounds of a filesystem checker. */
const LIMITS = { timeoutMs: 10 * 60 * 1000, memoryBytes: 2048 * MIB, fileBytes: 64 * MIB };

/** Runs a checker on one file, confined: it parses what a stranger may have written. */
function confinedTool(context: IngestContext): RunTool {
  return (command, args, { readable = [] } = {}) =>
    runConfinedTool(command, args, { readOnly: readable, limits: LIMITS, signal: context.signal });
}

/** Checks the filesystem of an image that is made of chunks. @throws ROOTFS_INVALID; JAIL_UNAVAILABLE without bubblewrap. */
export async function checkFilesystem(manifest: Manifest, image: RandomAccess, context: IngestContext): Promise<void> {
  const { scratchDirectory, signal } = context;
  if (manifest.format === 'erofs') {
    await checkErofs(image, { tempDir: scratchDirectory, runTool: confinedTool(context), signal });
  } else if (manifest.format === 'ext4') {
    const directory = await mkdtemp(join(scratchDirectory, 'check-'));
    try {
      const file = join(directory, 'rootfs.ext4');
      await writeChunks(manifest, image, file, signal);
      await checkExt4File(file, context);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
}

/** Checks an ext4 image in a file. @throws ROOTFS_INVALID with the last lines of the checker. */
export async function checkExt4File(file: string, context: IngestContext): Promise<void> {
  await checkExt4(file, confinedTool(context), { signal: context.signal });
}

/** Writes an image to a file, with holes where it has holes. */
async function writeChunks(
  manifest: Manifest,
  image: RandomAccess,
  path: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  await file.truncate(manifest.virtualBytes);
  for (let i = 0; i < manifest.entryCount; i++) {
    const { id, firstPage, pages } = manifest.entry(i);
    if (id === null) continue;
    const bytes = await image.read(firstPage * PAGE_BYTES, pages * PAGE_BYTES, { signal });
    await writeAt(file, bytes, firstPage * PAGE_BYTES);
  }
}
