import { createHash } from 'node:crypto';

import type { Machine, MachineFiles } from '../backends/backend.ts';
import type { Fence, TrustFile } from '../fence/fence.ts';
import type { OwnFile, OwnFiles } from './layer-without.ts';

export interface TrustFilesOptions {
  readonly fence: Fence;
  readonly machine: Machine;
  /** Tells images apart by what their files are, mounts included; undefined when nothing tells. */
  readonly imageKey: string | undefined;
  readonly signal: AbortSignal;
}

/**
 * Puts the files into the machine by which its programs trust the fence's authority, besides those they trust already.
 * Nothing of the image has run yet: what is read is the image's own. Resolves to what was put there.
 */
export async function putTrustFiles({ fence, machine, imageKey, signal }: TrustFilesOptions): Promise<OwnFiles> {
  const own = { files: new Map<string, OwnFile>(), folders: new Set<string>() };
  await machine.withFiles((files) => exchange(files, fence, bundlesOf(imageKey), own), signal);
  return own;
}

async function exchange(
  files: MachineFiles,
  fence: Fence,
  bundles: Bundles,
  own: { readonly files: Map<string, OwnFile>; readonly folders: Set<string> },
): Promise<void> {
  const wanted = await fence.trustFiles(async (path) => {
    if (!bundles.has(path)) bundles.set(path, await files.read(path));
    return bundles.get(path);
  });
  const put = async ({ path, content, mode }: TrustFile) => {
    const sha256 = createHash('sha256').update(content).digest('hex');
    own.files.set(path, { sizeBytes: content.length, sha256 });
    for (const folder of await files.write(path, content, mode)) own.folders.add(folder);
  };
  const [first, ...others] = wanted;
  // It makes the folder that others share.
  if (first !== undefined) await put(first);
  await allSettled(others.map(put));
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

function bundlesOf(imageKey: string | undefined): Bundles {
  if (imageKey === undefined) return new Map();
  const bundles: Bundles = known.get(imageKey) ?? new Map<string, Uint8Array | undefined>();
  known.delete(imageKey);
  known.set(imageKey, bundles);
  for (const oldest of known.keys()) {
    if (known.size <= MOST_IMAGES) break;
    known.delete(oldest);
  }
  return bundles;
}
