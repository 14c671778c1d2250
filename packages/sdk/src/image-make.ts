import {
  DecantError,
  parseImageName,
  type ImageDetail,
  type OnEvent,
  type RootfsFormat,
  type Template,
} from '@decant/core';
import type { OciImage } from '@decant/oci';
import {
  publishImage,
  type PublishContext,
  type PublishFacts,
  type PublishResult,
  type RootTree,
} from '@decant/publish';
import { checkExt4Options, type Ext4Options } from '@decant/rootfs';

import { inspectImage } from './image-names.ts';
import type { ImageResult } from './results.ts';
import type { Session } from './session.ts';

export interface MakeOptions {
  /** Private directory for temporary files. */
  readonly scratchDirectory: string;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What can be asked of the filesystem of an image that is made. */
export interface FilesystemRequest {
  readonly format: RootfsFormat;
  /** Bytes of the writable disk the image asks for; 0 or absent when nothing is said. It is the size of an ext4 image. */
  readonly diskBytes?: number | undefined;
  /** Only for `ext4`: the label, the UUID, and bytes to leave free instead of a size. */
  readonly ext4?: Pick<Ext4Options, 'freeBytes' | 'label' | 'uuid'> | undefined;
  /**
   * Seconds since 1970: later modification times are stored as this one, as SOURCE_DATE_EPOCH has it. Without it
   * none is changed; those in a disk image (`raw:`) never are.
   */
  readonly sourceDateEpoch?: number | undefined;
}

/** What publishing takes over of a request. @throws USAGE before any work for what no filesystem can be */
export function filesystemFacts({ format, diskBytes = 0, ext4, sourceDateEpoch }: FilesystemRequest) {
  if (ext4 !== undefined && format !== 'ext4') {
    throw new DecantError('USAGE', 'A label, a UUID and free room can be given to ext4 images only.', {
      hint: 'Leave them out, or make an image without --streaming.',
    });
  }
  if (format === 'ext4') checkExt4Options({ ...ext4, ...(diskBytes === 0 ? {} : { diskBytes }) });
  if (sourceDateEpoch !== undefined && !(Number.isSafeInteger(sourceDateEpoch) && sourceDateEpoch >= 0)) {
    throw new DecantError('USAGE', `Not a source date: ${sourceDateEpoch}.`, {
      hint: 'Give whole seconds since 1970.',
    });
  }
  return { format, diskBytes, ext4, sourceDateEpoch };
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
