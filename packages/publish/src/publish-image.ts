import { stat } from 'node:fs/promises';
import { join } from 'node:path';

import { formatImageName, parseImageName, stage, type ImageConfig, type RootfsFormat } from '@decant/core';
import type { OciImage } from '@decant/oci';
import {
  createScratch,
  flattenImage,
  planErofs,
  writeExt4,
  type DirectoryNode,
  type ErofsPlan,
  type Ext4Options,
  type FlattenedTree,
  type FlattenLimits,
  type FlattenOptions,
  type Scratch,
} from '@decant/rootfs';

import { giveHeapBack } from './give-heap-back.ts';
import { publishArchive } from './publish-archive.ts';
import {
  admitStaged,
  stageStreaming,
  type PublishContext,
  type PublishResult,
  type StagedImage,
} from './publish-streaming.ts';

/** From so many inodes on, the memory of a tree is given back at once when it is not needed any more. */
const MANY_INODES = 20_000;

/** What is made of an image, wherever it comes from. */
export interface PublishFacts {
  /** `NAME[:TAG]`. */
  readonly name: string;
  readonly format: RootfsFormat;
  /** Bytes of the writable disk the image asks for; 0 when nothing was said. */
  readonly diskBytes: number;
  /** Seconds since 1970: later modification times are stored as this one. Default: none is changed. */
  readonly sourceDateEpoch?: number | undefined;
  /** Bounds on what the layers may hold, instead of the default ones. */
  readonly limits?: Partial<FlattenLimits> | undefined;
  /** Of an `ext4` image: its label, its UUID and the room to leave in it. */
  readonly ext4?: Pick<Ext4Options, 'freeBytes' | 'label' | 'uuid'> | undefined;
  readonly dockerfile?: string | undefined;
  readonly baseImage?: string | undefined;
}

/** A root filesystem that is no image with layers. */
export interface RootTree {
  readonly config: ImageConfig;
  flatten(options: FlattenOptions): Promise<FlattenedTree>;
}

/** Turns an OCI image or a root filesystem into an admitted, named image of the format asked for. */
export async function publishImage(
  image: OciImage | RootTree,
  facts: PublishFacts,
  context: PublishContext,
): Promise<{ readonly published: PublishResult; readonly layoutMs: number }> {
  if (facts.format === 'cas-streaming') {
    // The tree is of no use to the admission, and an embedded server needs the memory for its own.
    const { staged, layoutMs, inodeCount } = await stageImage(image, facts, context);
    if (inodeCount >= MANY_INODES) giveHeapBack();
    return { published: await admitStaged(staged, context), layoutMs };
  }
  return publishExt4(image, facts, context);
}

/** Lays the image out as EROFS and uploads what the server lacks of it. */
async function stageImage(
  image: OciImage | RootTree,
  facts: PublishFacts,
  context: PublishContext,
): Promise<{ readonly staged: StagedImage; readonly layoutMs: number; readonly inodeCount: number }> {
  const { scratchDirectory, signal } = context;
  const name = formatImageName(parseImageName(facts.name));
  const started = performance.now();
  await using scratch = await createScratch(scratchDirectory);
  const plan = await layOut(image, scratch, facts, context);
  const { inodeCount } = plan;
  if (inodeCount >= MANY_INODES) giveHeapBack();
  const layoutMs = Math.round(performance.now() - started);
  const staged = await stageStreaming(
    {
      ...facts,
      name,
      pieces: plan.pieces({ signal }),
      expectedBytes: plan.sizeBytes,
      filesystem: 'erofs',
      layout: 'hinted',
      architecture: architectureOf(image.config),
      config: image.config,
    },
    context,
  );
  return { staged, layoutMs, inodeCount };
}

/** In a function of its own: the tree is not kept while what is planned is written. */
async function layOut(
  image: OciImage | RootTree,
  scratch: Scratch,
  facts: PublishFacts,
  context: PublishContext,
): Promise<ErofsPlan> {
  const { hash, onEvent, signal } = context;
  const { sourceDateEpoch } = facts;
  const root = await flatten(image, scratch, facts, context);
  return stage(onEvent, 'layout', async (finish) => {
    const planned = await planErofs(root, { hash, sourceDateEpoch, signal });
    finish({ message: `${planned.inodeCount} inodes`, bytes: planned.sizeBytes });
    return planned;
  });
}

async function publishExt4(
  image: OciImage | RootTree,
  facts: PublishFacts,
  context: PublishContext,
): Promise<{ readonly published: PublishResult; readonly layoutMs: number }> {
  const { scratchDirectory, onEvent, signal } = context;
  const name = formatImageName(parseImageName(facts.name));
  const { sourceDateEpoch } = facts;
  const started = performance.now();
  await using scratch = await createScratch(scratchDirectory);
  const root = await flatten(image, scratch, facts, context);
  const file = join(scratchDirectory, 'rootfs.ext4');
  const { contentBytes } = await stage(onEvent, 'layout', async (finish) => {
    const { diskBytes } = facts;
    const written = await writeExt4(root, {
      ...facts.ext4,
      outFile: file,
      ...(diskBytes === 0 ? {} : { diskBytes }),
      sourceDateEpoch,
      tempDir: scratchDirectory,
      signal,
    });
    finish({ bytes: (await stat(file)).size });
    return written;
  });
  const layoutMs = Math.round(performance.now() - started);
  const published = await publishArchive(
    { ...facts, name, file, contentBytes, config: image.config, layout: 'hinted' },
    context,
  );
  return { published, layoutMs };
}

async function flatten(
  image: OciImage | RootTree,
  scratch: Scratch,
  { limits }: PublishFacts,
  { onEvent, signal }: PublishContext,
): Promise<DirectoryNode> {
  const options = { scratch, limits, onEvent, signal };
  const { root } = await ('flatten' in image ? image.flatten(options) : flattenImage(image, options));
  return root;
}

function architectureOf(config: ImageConfig): 'amd64' | 'arm64' | null {
  const { architecture } = config;
  return architecture === 'amd64' || architecture === 'arm64' ? architecture : null;
}
