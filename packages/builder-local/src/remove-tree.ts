import { chmod, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { errnoOf } from '@decant/core';

/** Removes a directory with all below it, also when directories in it forbid their owner to write. */
export async function removeTree(root: string): Promise<void> {
  try {
    await rm(root, { recursive: true, force: true });
  } catch (error) {
    if (errnoOf(error) !== 'EACCES' && errnoOf(error) !== 'EPERM') throw error;
    await openDirectories(root);
    await rm(root, { recursive: true, force: true });
  }
}

async function openDirectories(directory: string): Promise<void> {
  await chmod(directory, 0o700);
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) await openDirectories(join(directory, entry.name));
  }
}
