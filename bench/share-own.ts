import { createReadStream } from 'node:fs';

import { MANIFEST_PAGE_ENTRIES, type HashProvider } from '@decant/cas';
import { createZstdCodec } from '@decant/cas/node';
import { createScratch, flattenTar, planErofs, type ErofsPlan } from '@decant/rootfs';

import { cutImage, type CutImage } from './share-cuts.ts';

/** One of our images, cut as its writer hints. */
export interface OwnImage extends CutImage {
  /** Stored bytes by chunk; empty unless asked for. */
  readonly stored: ReadonlyMap<string, number>;
}

/** Lays the tree of an archive out as our writer does and gives the plan to `use`, while its file data can be read. */
export async function withPlan<T>(
  archive: string,
  { hash, scratchFolder }: { readonly hash: HashProvider; readonly scratchFolder: string },
  use: (plan: ErofsPlan) => Promise<T>,
): Promise<T> {
  await using scratch = await createScratch(scratchFolder);
  const { root } = await flattenTar(createReadStream(archive, { highWaterMark: 1024 * 1024 }), { scratch });
  // Awaited here: afterwards the scratch file is gone.
  return await use(await planErofs(root, { hash }));
}

export async function cutOwn(
  archive: string,
  options: { readonly hash: HashProvider; readonly scratchFolder: string; readonly store: boolean },
): Promise<OwnImage> {
  const { hash, store } = options;
  const codec = createZstdCodec();
  const stored = new Map<string, number>();
  const image = await withPlan(archive, options, (plan) =>
    cutImage(plan.pieces(), {
      ...{ layout: 'hinted', hash },
      onStretch(stretch) {
        if (!store || stretch.type === 'hole' || stored.has(stretch.id)) return;
        stored.set(stretch.id, codec.encode(stretch.bytes).stored.length);
      },
    }),
  );
  return { ...image, stored };
}

/** Size of the manifest, without the 4 KiB that every image is allowed, as a share of the content. */
export function manifestShare({ entryCount, contentBytes }: CutImage): number {
  const bytes = 256 + 40 * entryCount + 40 * Math.ceil(entryCount / MANIFEST_PAGE_ENTRIES);
  return Math.max(0, bytes - 4096) / contentBytes;
}

/** Share of the stored bytes of an image that another has not. */
export function newStoredShare(before: CutImage, after: OwnImage): number {
  let fresh = 0;
  let all = 0;
  for (const [id, bytes] of after.stored) {
    all += bytes;
    if (!before.chunks.has(id)) fresh += bytes;
  }
  return fresh / all;
}
