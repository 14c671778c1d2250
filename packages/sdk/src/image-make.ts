import { stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { ImageDetail, ImageConfig, OnEvent, RootfsFormat, Template } from '@decant/core';
import { formatImageName, parseImageName, stage } from '@decant/core';
import type { OciImage } from '@decant/oci';
import { publishArchive, publishStreaming, type PublishResult } from '@decant/publish';
import {
  createScratch,
  flattenImage,
  planErofs,
  writeExt4,
  type FlattenedTree,
  type FlattenOptions,
} from '@decant/rootfs';

import { inspectImage } from './image-names.ts';
import type { ImageResult } from './results.ts';
import type { Session } from './session.ts';

/** What is made of an image, wherever it comes from. */
export interface MakeFacts {
  /** `NAME[:TAG]`. */
  readonly name: string;
  readonly format: RootfsFormat;
  /** Bytes of the writable disk the image asks for; 0 when nothing was said. */
  readonly diskBytes: number;
  readonly dockerfile?: string | undefined;
  readonly baseImage?: string | undefined;
}

export interface MakeOptions {
  /** Private directory for temporary files. */
  readonly scratchDirectory: string;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A root filesystem that is no image with layers. */
export interface RootTree {
  readonly config: ImageConfig;
  flatten(options: FlattenOptions): Promise<FlattenedTree>;
}

/** Turns an OCI image or a root filesystem into an admitted, named image of the format asked for. */
export async function makeImage(
  session: Session,
  image: OciImage | RootTree,
  facts: MakeFacts,
  options: MakeOptions,
): Promise<{ readonly published: PublishResult; readonly layoutMs: number }> {
  const { scratchDirectory, onEvent, signal } = options;
  const hash = await session.hash();
  const context = { client: session.client, fetch: session.fetch, hash, codec: session.codec, ...options };
  const name = formatImageName(parseImageName(facts.name));
  const architecture = architectureOf(image.config);
  const started = performance.now();
  await using scratch = await createScratch(scratchDirectory);
  const flattening = { scratch, onEvent, signal };
  const { root } = await ('flatten' in image ? image.flatten(flattening) : flattenImage(image, flattening));
  if (facts.format === 'cas-streaming') {
    const plan = await stage(onEvent, 'layout', async (finish) => {
      const planned = await planErofs(root, { hash, signal });
      finish({ message: `${planned.inodeCount} inodes`, bytes: planned.sizeBytes });
      return planned;
    });
    const layoutMs = Math.round(performance.now() - started);
    const published = await publishStreaming(
      {
        ...facts,
        name,
        pieces: plan.pieces({ signal }),
        expectedBytes: plan.sizeBytes,
        filesystem: 'erofs',
        layout: 'hinted',
        architecture,
        config: image.config,
      },
      context,
    );
    return { published, layoutMs };
  }
  const file = join(scratchDirectory, 'rootfs.ext4');
  const { contentBytes } = await stage(onEvent, 'layout', async (finish) => {
    const { diskBytes } = facts;
    const written = await writeExt4(root, {
      outFile: file,
      ...(diskBytes === 0 ? {} : { diskBytes }),
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

export function architectureOf(config: ImageConfig): 'amd64' | 'arm64' | null {
  const { architecture } = config;
  return architecture === 'amd64' || architecture === 'arm64' ? architecture : null;
}

/** The result of `create` and `import`: what the server says of the image it admitted. */
export async function imageResult(
  session: Session,
  published: PublishResult,
  timings: { readonly build: number; readonly layout: number; readonly total: number },
  signal: AbortSignal | undefined,
): Promise<ImageResult> {
  const { template, uploadedBytes, timingsMs } = published;
  const detail: ImageDetail = await inspectImage(session, template.imageId, { signal });
  const { image } = detail;
  return {
    image: {
      id: image.id,
      ...parseImageName(template.name),
      format: image.format,
      architecture: image.architecture,
      virtualBytes: image.virtualBytes,
      contentBytes: image.contentBytes,
      createdAt: image.createdAt,
    },
    chunks: chunkCounts(template, image.chunks),
    bytes: {
      new: template.admission?.newBytes ?? 0,
      stored: template.admission?.storedBytes ?? 0,
      uploaded: uploadedBytes,
    },
    timingsMs: {
      build: timings.build,
      layout: timings.layout,
      upload: timingsMs.upload,
      admit: timingsMs.admit,
      total: timings.total,
    },
  };
}

function chunkCounts({ admission }: Template, total: number | null): ImageResult['chunks'] {
  if (total === null) return null;
  const fresh = admission?.chunksNew ?? 0;
  return { total, new: fresh, reused: total - fresh };
}
