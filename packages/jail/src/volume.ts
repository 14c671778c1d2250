import { open, rm } from 'node:fs/promises';

import { DecantError } from '@decant/core';
import { run } from '@decant/core/node';

const MKFS_TIMEOUT_MS = 60_000;
const SMALLEST_BYTES = 16 * 1024 * 1024;

/**
 * Makes an empty ext4 filesystem of a fixed size in a new sparse file: a bound on what a cell can write to the disk. It
 * has no journal, so that after a crash of the machine it is to be thrown away. Its root belongs to `ownerId`.
 * @throws JAIL_UNAVAILABLE without mkfs.ext4, EEXIST when the file is there.
 */
export async function createVolume(
  file: string,
  options: { readonly sizeBytes: number; readonly ownerId: number; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  const { sizeBytes, ownerId, signal } = options;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < SMALLEST_BYTES) {
    throw new DecantError('USAGE', `A volume needs at least ${SMALLEST_BYTES} bytes.`);
  }
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.truncate(sizeBytes);
    const extended = `lazy_itable_init=1,nodiscard,root_owner=${ownerId}:${ownerId}`;
    const args = ['-q', '-F', '-O', '^has_journal', '-m', '0', '-E', extended, file];
    await run('mkfs.ext4', args, { timeoutMs: MKFS_TIMEOUT_MS, signal });
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  } finally {
    await handle.close();
  }
}
