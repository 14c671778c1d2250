import { readdir, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { MIB, roundUp } from '@decant/core';
import { run } from '@decant/core/node';

const UUID = 'a3f5c1d2-0b5e-4c8e-9a62-2f7b0d6c9e11';
const SECONDS = '1767225600';
const TOOL_TIMEOUT_MS = 15 * 60_000;
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

/** An image of a folder by `mkfs.ext4 -d`, as reproducible as that gets: a quarter larger than what is in it. */
export async function makeExt4(folder: string, file: string): Promise<void> {
  const sizeBytes = roundUp((await spaceOf(folder)) * 1.25 + 64 * MIB, MIB);
  await writeFile(file, '');
  await truncate(file, sizeBytes);
  const options = ['-q', '-F', '-m', '0', '-O', '^has_journal', '-b', '4096', '-U', UUID];
  await run('mkfs.ext4', [...options, '-E', `hash_seed=${UUID}`, '-d', folder, file], {
    env: { ...process.env, PATH, E2FSPROGS_FAKE_TIME: SECONDS },
    timeoutMs: TOOL_TIMEOUT_MS,
  });
}

/** An image of a folder by mkfs.erofs, uncompressed, with a fixed UUID and build time. */
export async function makeErofs(folder: string, file: string): Promise<void> {
  const options = ['--quiet', '-T', SECONDS, '--preserve-mtime', '-U', UUID];
  await run('mkfs.erofs', [...options, file, folder], { env: { ...process.env, PATH }, timeoutMs: TOOL_TIMEOUT_MS });
}

async function spaceOf(folder: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += roundUp((await stat(join(entry.parentPath, entry.name))).size, 4096) + 256;
    else bytes += 512;
  }
  return bytes;
}
