import { openChunk } from '@decant/cas';
import { DecantError, isStreamingImageId, parseImageId, stage, type ChunkId } from '@decant/core';

import { readArchive } from './image-archive.ts';
import { inspectImage } from './image-names.ts';
import { openStreamingSource } from './image-source.ts';
import type { Session, WorkOptions } from './session.ts';

export interface VerifyResult {
  readonly id: string;
  /** Distinct chunks that were read and hashed; 1 for an image of one object. */
  readonly chunks: number;
  /** Plain bytes of them. */
  readonly bytes: number;
}

/** Plain bytes asked of the source at once. */
const BATCH_BYTES = 8 * 1024 * 1024;

export async function verifyImage(
  session: Session,
  ref: string,
  { onEvent, signal }: WorkOptions,
): Promise<VerifyResult> {
  const detail = await inspectImage(session, ref, { signal });
  const { id } = detail.image;
  if (!isStreamingImageId(parseImageId(id))) {
    return stage(onEvent, 'verify', async (finish) => {
      await readArchive(session, detail, { stage: 'verify', onEvent, signal });
      finish({ bytes: detail.image.virtualBytes });
      return { id, chunks: 1, bytes: detail.image.virtualBytes };
    });
  }
  return stage(onEvent, 'verify', async (finish) => {
    // By id: a name that moves meanwhile does not mix two images. Nothing is taken from the cache.
    const { manifest, source } = await openStreamingSource(session, id, signal);
    const hash = await session.hash();
    let chunks = 0;
    let bytes = 0;
    const check = async (batch: ReadonlyMap<ChunkId, number>) => {
      const left = new Set(batch.keys());
      for await (const frame of source.get([...batch.keys()], { signal })) {
        openChunk(frame, { id: frame.id, plainBytes: batch.get(frame.id) ?? 0 }, { hash, codec: session.codec });
        left.delete(frame.id);
        chunks++;
        bytes += frame.plainBytes;
      }
      for (const chunk of left) throw new DecantError('CAS_CHUNK_MISSING', `Chunk ${chunk} of ${ref} is missing.`);
      onEvent?.({ type: 'stage-progress', stage: 'verify', bytes, totalBytes: manifest.chunkBytes, items: chunks });
    };
    let batch = new Map<ChunkId, number>();
    let batchBytes = 0;
    for (const chunk of manifest.chunks()) {
      batch.set(chunk.id, chunk.plainBytes);
      batchBytes += chunk.plainBytes;
      if (batchBytes < BATCH_BYTES) continue;
      await check(batch);
      batch = new Map();
      batchBytes = 0;
    }
    if (batch.size > 0) await check(batch);
    finish({ bytes, items: chunks });
    return { id, chunks, bytes };
  });
}
