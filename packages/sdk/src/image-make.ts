import { parseImageName, type ImageDetail, type OnEvent, type Template } from '@decant/core';
import type { OciImage } from '@decant/oci';
import {
  publishImage,
  type PublishContext,
  type PublishFacts,
  type PublishResult,
  type RootTree,
} from '@decant/publish';

import { inspectImage } from './image-names.ts';
import type { ImageResult } from './results.ts';
import type { Session } from './session.ts';

export interface MakeOptions {
  /** Private directory for temporary files. */
  readonly scratchDirectory: string;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What publishing needs of a session. */
export async function publishContext(session: Session, options: MakeOptions): Promise<PublishContext> {
  const { client, fetch, codec } = session;
  return { client, fetch, codec, hash: await session.hash(), ...options };
}

/** Turns an OCI image or a root filesystem into an admitted, named image of the format asked for. */
export async function makeImage(
  session: Session,
  image: OciImage | RootTree,
  facts: PublishFacts,
  options: MakeOptions,
): Promise<{ readonly published: PublishResult; readonly layoutMs: number }> {
  return publishImage(image, facts, await publishContext(session, options));
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
