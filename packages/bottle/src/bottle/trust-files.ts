import type { Machine, MachineFiles } from '../backends/backend.ts';
import type { Fence, TrustFile } from '../fence/fence.ts';

export interface TrustFilesOptions {
  readonly fence: Fence;
  readonly machine: Machine;
  /** Tells images apart by what their files are, mounts included; undefined when nothing tells. */
  readonly imageKey: string | undefined;
  readonly signal: AbortSignal;
}

/**
 * Puts the files into the machine by which its programs trust the fence's authority, besides those they trust already.
 * Nothing of the image has run yet: what is read is the image's own.
 */
export async function putTrustFiles({ fence, machine, imageKey, signal }: TrustFilesOptions): Promise<void> {
  await machine.withFiles((files) => exchange(files, fence, bundlesOf(imageKey)), signal);
}

async function exchange(files: MachineFiles, fence: Fence, bundles: Bundles): Promise<void> {
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
