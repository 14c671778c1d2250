import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { isDecantError, MIB } from '@decant/core';

import type { CopyLimits, Machine } from '../backends/backend.ts';
import type { Fence } from '../fence/fence.ts';

/** A bundle of authorities is a quarter of a mebibyte. */
const LARGEST: CopyLimits = { entries: 1, bytes: 8 * MIB };

/** Puts the files into the machine by which its programs trust the fence's authority, besides those they trust already. */
export async function putTrustFiles(options: {
  readonly fence: Fence;
  readonly machine: Machine;
  /** With a folder `trust` in it. */
  readonly stateDirectory: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { fence, machine, stateDirectory, signal } = options;
  const folder = await mkdtemp(join(stateDirectory, 'trust', 'files-'));
  try {
    let number = 0;
    const files = await fence.trustFiles(async (path) => {
      const copy = join(folder, `read-${++number}`);
      try {
        await machine.copyOut(path, copy, LARGEST, signal);
      } catch (error) {
        signal.throwIfAborted();
        // Not there, or no plain file: the image has no bundle of its own.
        if (isDecantError(error)) return undefined;
        throw error;
      }
      return (await stat(copy)).isFile() ? await readFile(copy) : undefined;
    });
    for (const { path, content, mode } of files) {
      const copy = join(folder, `write-${++number}`);
      await writeFile(copy, content, { mode });
      await machine.copyIn(copy, path, LARGEST, signal);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
