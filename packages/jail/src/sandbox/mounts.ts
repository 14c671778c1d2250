import { realpath } from 'node:fs/promises';

import { DecantError, errnoOf, quote } from '@decant/core';

import type { SandboxMount } from './types.ts';

const MOST_MOUNTS = 64;
/** Below these lie the kernel's interfaces and the sockets of services. */
const NEVER = ['/proc', '/sys', '/dev', '/run', '/var/run'];

/**
 * The mounts with the sources that their paths lead to now.
 * @throws USAGE for a path that cannot be one, a source that is not there, and one that would show what must stay hidden.
 */
export async function checkMounts(
  mounts: readonly SandboxMount[],
  hiddenFolders: readonly string[],
): Promise<readonly SandboxMount[]> {
  if (mounts.length > MOST_MOUNTS) throw new DecantError('LIMIT_EXCEEDED', `More than ${MOST_MOUNTS} mounts.`);
  const hidden = await Promise.all([...NEVER, ...hiddenFolders].map((path) => realpath(path).catch(() => path)));
  return Promise.all(mounts.map((mount) => checkMount(mount, hidden)));
}

async function checkMount(mount: SandboxMount, hidden: readonly string[]): Promise<SandboxMount> {
  checkPath(mount.target, 'target');
  const taken = ['/proc', '/dev', '/sys'].find((path) => isWithin(mount.target, path));
  if (taken !== undefined || isRoot(mount.target)) {
    throw new DecantError('USAGE', `Nothing can be mounted at ${quote(mount.target)}.`);
  }
  if (mount.type === 'tmpfs') {
    if (!Number.isSafeInteger(mount.sizeBytes) || mount.sizeBytes < 4096) {
      throw new DecantError('USAGE', `The memory at ${quote(mount.target)} needs at least 4,096 bytes.`);
    }
    return mount;
  }
  checkPath(mount.source, 'source');
  const source = await realpath(mount.source).catch((error: unknown) => {
    throw new DecantError('USAGE', `The mount ${quote(mount.source)} cannot be used: ${errnoOf(error) ?? 'unknown'}.`, {
      cause: error,
    });
  });
  const shown = hidden.find((path) => isWithin(source, path) || isWithin(path, source));
  if (shown !== undefined) {
    throw new DecantError('USAGE', `The mount ${quote(mount.source)} would show ${quote(shown)}, which stays hidden.`, {
      hint: 'Mount a folder that holds only what the command is to see.',
    });
  }
  return { ...mount, source };
}

function checkPath(path: string, what: string): void {
  if (path.startsWith('/') && !path.includes('\0') && !path.split('/').includes('..')) return;
  throw new DecantError('USAGE', `The ${what} ${quote(path)} of a mount is not an absolute path without "..".`);
}

function isRoot(path: string): boolean {
  return path.split('/').every((part) => part === '' || part === '.');
}

/** Whether a path is a folder or below it. */
export function isWithin(path: string, folder: string): boolean {
  const parts = (text: string) => text.split('/').filter((part) => part !== '' && part !== '.');
  const inner = parts(path);
  return parts(folder).every((part, index) => inner[index] === part);
}
