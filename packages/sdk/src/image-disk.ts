import { join } from 'node:path';

import { openFileRandomAccess } from '@decant/cas/node';
import type { RandomAccess } from '@decant/cas';
import { isStreamingImageId, parseImageId, stage, type ImageDetail } from '@decant/core';
import { createImageDisk } from '@decant/stream';

import { readArchive } from './image-archive.ts';
import { inspectImage } from './image-names.ts';
import { openStreamingSource } from './image-source.ts';
import type { RunStats } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

/** An image as a disk that can be read anywhere. */
export interface OpenDisk extends AsyncDisposable {
  readonly detail: ImageDetail;
  readonly disk: RandomAccess;
  /** The file that holds the whole disk; undefined for one that streams. */
  readonly file: string | undefined;
  stats(): RunStats;
}

/** Opens a streaming image lazily; an ext4 image is written to a file in `scratchDirectory` first. */
export async function openDisk(
  session: Session,
  ref: string,
  { scratchDirectory, onEvent, signal }: WorkOptions & { readonly scratchDirectory: string },
): Promise<OpenDisk> {
  const detail = await inspectImage(session, ref, { signal });
  const { image } = detail;
  if (isStreamingImageId(parseImageId(image.id))) {
    const { manifest, source, cache } = await openStreamingSource(session, image.id, signal);
    const disk = createImageDisk({ manifest, source, cache, hash: await session.hash(), codec: session.codec });
    return {
      detail,
      disk,
      file: undefined,
      stats: () => disk.stats(),
      [Symbol.asyncDispose]: () => disk[Symbol.asyncDispose](),
    };
  }
  const file = join(scratchDirectory, 'disk.ext4');
  const { storedBytes } = await stage(onEvent, 'fetch', async (finish) => {
    const read = await readArchive(session, detail, { file, stage: 'fetch', onEvent, signal });
    finish({ bytes: image.virtualBytes });
    return read;
  });
  const disk = await openFileRandomAccess(file);
  return {
    detail,
    disk,
    file,
    stats: () => ({ chunksFetched: 1, bytesFetched: storedBytes, bytesVirtual: image.virtualBytes, rounds: 1 }),
    [Symbol.asyncDispose]: () => disk[Symbol.asyncDispose](),
  };
}
