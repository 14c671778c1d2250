import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

import { parseImageName, stage } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import type { RootTree } from '@decant/publish';
import { flattenOnto } from '@decant/rootfs';

import { findBottle } from './bottle-client.ts';
import { imageResult, makeImage } from './image-make.ts';
import { inspectImage } from './image-names.ts';
import { openBaseTree } from './image-tree.ts';
import type { ImageResult } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

export interface SnapshotBottleRequest {
  readonly slug: string;
  /** `NAME[:TAG]` of the new image. */
  readonly name: string;
}

/**
 * Makes an image of a running bottle: its own image with what was written since, the same configuration, and the chunks
 * of all that did not change. Its processes stand still only while the changes are taken. Mounts and memory are not in it.
 * The image streams, whatever the bottle's is. @throws NOT_FOUND, LIMIT_EXCEEDED, ROOTFS_UNSUPPORTED for an ext4 filesystem
 * of others that has what ours have not
 */
export async function snapshotBottle(
  session: Session,
  { slug, name }: SnapshotBottleRequest,
  { onEvent, signal }: WorkOptions,
): Promise<ImageResult> {
  const started = performance.now();
  parseImageName(name);
  const client = await findBottle(session, slug);
  const { image } = await client.info(signal);
  const { diskBytes } = await inspectImage(session, image.id, { signal });
  await using scratch = await openScratchDirectory(session.paths.scratch);
  const options = { scratchDirectory: scratch.path, onEvent, signal };
  await using base = await openBaseTree(session, image.id, options);
  const file = join(scratch.path, 'changes.tar');
  await stage(onEvent, 'fetch', async (finish) => {
    const changes = await client.changes(signal);
    await using to = await open(file, 'wx', 0o600);
    let bytes = 0;
    for await (const piece of changes.stdout) {
      for (let done = 0; done < (piece as Buffer).length;) done += (await to.write(piece as Buffer, done)).bytesWritten;
      bytes += (piece as Buffer).length;
      onEvent?.({ type: 'stage-progress', stage: 'fetch', bytes });
    }
    await changes.done;
    finish({ message: `changes of ${slug}`, bytes });
  });
  const tree: RootTree = {
    config: base.config,
    flatten: async (flattening) => {
      const { root, warnings } = await base.flatten(flattening);
      const layer = { name: `the changes of ${slug}`, open: () => createReadStream(file) };
      const merged = await flattenOnto(root, [layer], flattening);
      return { root: merged.root, warnings: [...warnings, ...merged.warnings] };
    },
  };
  const facts = { name, format: 'cas-streaming', diskBytes, baseImage: image.ref } as const;
  const { published, layoutMs } = await makeImage(session, tree, facts, options);
  const total = Math.round(performance.now() - started);
  return imageResult(session, published, { build: 0, layout: layoutMs, total }, signal);
}
