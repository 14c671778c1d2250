import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { isDecantError, MIB } from '@decant/core';

import type { CopyLimits, Machine, MachineFiles } from '../backends/backend.ts';
import type { Fence, TrustFile } from '../fence/fence.ts';

/** A bundle of authorities is a quarter of a mebibyte. */
const LARGEST: CopyLimits = { entries: 1, bytes: 8 * MIB };
/** What a read says when there is no such file, it is no plain file, or too large to be a bundle. */
const NO_BUNDLE = new Set<string>(['USAGE', 'NOT_FOUND', 'LIMIT_EXCEEDED']);

export interface TrustFilesOptions {
  readonly fence: Fence;
  readonly machine: Machine;
  /** Tells images apart by what their files are, mounts included. */
  readonly imageKey: string;
  /** With a folder `trust` in it. */
  readonly stateDirectory: string;
  readonly signal: AbortSignal;
}

/**
 * Puts the files into the machine by which its programs trust the fence's authority, besides those they trust already.
 * Nothing of the image has run yet: what is read is the image's own.
 */
export async function putTrustFiles(options: TrustFilesOptions): Promise<void> {
  const { machine, signal } = options;
  if (machine.withFiles !== undefined) await machine.withFiles((files) => exchange(files, options), signal);
  else await withCopies(options, (files) => exchange(files, options));
}

async function exchange(files: MachineFiles, { fence, imageKey }: TrustFilesOptions): Promise<void> {
  const bundles = bundlesOf(imageKey);
  const wanted = await fence.trustFiles(async (path) => {
    if (!bundles.has(path)) bundles.set(path, await files.read(path));
    return bundles.get(path);
  });
  const put = ({ path, content, mode }: TrustFile) => files.write(path, content, mode);
  const [first, ...others] = wanted;
  // It makes the folder that others share.
  if (first !== undefined) await put(first);
  await allSettled(others.map(put));
}

/** Files by a copy of each, through a folder of the host. */
async function withCopies(
  { machine, stateDirectory, signal }: TrustFilesOptions,
  use: (files: MachineFiles) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(stateDirectory, 'trust', 'files-'));
  let number = 0;
  try {
    await use({
      async read(path) {
        const copy = join(folder, `${++number}`);
        try {
          await machine.copyOut(path, copy, LARGEST, signal);
        } catch (error) {
          signal.throwIfAborted();
          if (isDecantError(error) && NO_BUNDLE.has(error.code)) return undefined;
          throw error;
        }
        return (await stat(copy)).isFile() ? await readFile(copy) : undefined;
      },
      async write(path, content, mode) {
        const copy = join(folder, `${++number}`);
        await writeFile(copy, content, { mode });
        await machine.copyIn(copy, path, LARGEST, signal);
      },
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** All of them have ended when this settles. */
async function allSettled(works: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(works);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

type Bundles = Map<string, Uint8Array | undefined>;
const MOST_IMAGES = 4;
/** Bundles of the images that were used last, for the next bottle on one of them. */
const known = new Map<string, Bundles>();

function bundlesOf(imageKey: string): Bundles {
  const bundles: Bundles = known.get(imageKey) ?? new Map<string, Uint8Array | undefined>();
  known.delete(imageKey);
  known.set(imageKey, bundles);
  for (const oldest of known.keys()) {
    if (known.size <= MOST_IMAGES) break;
    known.delete(oldest);
  }
  return bundles;
}
