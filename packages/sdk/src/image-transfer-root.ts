import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { DecantError, errnoOf, isDecantError, quote, stage } from '@decant/core';
import { run } from '@decant/core/node';
import { hostPlatform, readPlainArchive } from '@decant/oci';
import type { RootTree } from '@decant/publish';
import { flattenTar } from '@decant/rootfs';

import type { WorkOptions } from './session.ts';

const TAR_TIMEOUT_MS = 60 * 60 * 1000;

/** A root filesystem in a tar archive, plain or compressed; taken to be for this machine's processor. Errors call it `name`. */
export function rootOfTar(path: string, name = path): RootTree {
  const { os, architecture } = hostPlatform();
  return {
    config: { os, architecture },
    flatten: (options) =>
      flattenTar(readPlainArchive(path, { lend: true, signal: options.signal }), { ...options, name: quote(name) }),
  };
}

/**
 * A root filesystem in a directory, archived into the scratch directory with GNU tar, which reads what Node cannot:
 * extended attributes, holes, names that are no text. Owners are those on disk. Sockets, and other filesystems
 * that are mounted inside, are left out.
 * @throws OCI_SOURCE_INVALID when it is no directory, cannot be read in full or changes meanwhile; PROCESS_MISSING
 */
export async function rootOfDirectory(
  path: string,
  options: WorkOptions & { readonly scratchDirectory: string },
): Promise<RootTree> {
  const { scratchDirectory, onEvent, signal } = options;
  const directory = resolve(path);
  const isDirectory = await stat(directory).then(
    (info) => info.isDirectory(),
    (error: unknown) => {
      throw new DecantError('OCI_SOURCE_INVALID', `${quote(path)} cannot be read: ${errnoOf(error) ?? 'unknown'}.`, {
        cause: error,
      });
    },
  );
  if (!isDirectory) throw new DecantError('OCI_SOURCE_INVALID', `${quote(path)} is not a directory.`);
  const file = join(scratchDirectory, 'directory.tar');
  await stage(onEvent, 'fetch', () => archiveDirectory(directory, file, { signal }));
  return rootOfTar(file, directory);
}

/**
 * Archives a directory with GNU tar as it is on disk. @throws OCI_SOURCE_INVALID when it cannot be read in full or
 * changes meanwhile; PROCESS_MISSING, DISK_FULL
 */
export async function archiveDirectory(
  directory: string,
  file: string,
  { signal }: Pick<WorkOptions, 'signal'>,
): Promise<void> {
  const args = [
    ...['--create', '--file', file, '--format=posix', '--pax-option=delete=atime,delete=ctime', '--sort=name'],
    ...['--numeric-owner', '--sparse', '--xattrs', '--xattrs-include=*', '--one-file-system'],
    ...[`--directory=${directory}`, '.'],
  ];
  try {
    await run('tar', args, {
      env: { ...process.env, LC_ALL: 'C', TAR_OPTIONS: '' },
      timeoutMs: TAR_TIMEOUT_MS,
      signal,
    });
  } catch (error) {
    if (!isDecantError(error, 'PROCESS_FAILED')) throw error;
    // GNU tar's status 1: files changed while they were read.
    const changed = error.details['exitCode'] === 1;
    throw new DecantError(
      'OCI_SOURCE_INVALID',
      changed ? `${quote(directory)} changed while it was read.` : `${quote(directory)} cannot be read in full.`,
      { details: error.details, cause: error, hint: changed ? 'Try again while nothing writes there.' : undefined },
    );
  }
}
