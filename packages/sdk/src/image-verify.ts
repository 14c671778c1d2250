import { openChunk } from '@decant/cas';
import {
  checkChunksResponseSchema,
  DecantError,
  isDecantError,
  isStreamingImageId,
  MAX_MISSING_IDS,
  parseImageId,
  stage,
  type ChunkId,
} from '@decant/core';

import { readArchive } from './image-archive.ts';
import { imagePath, inspectImage } from './image-names.ts';
import { openStreamingSource } from './image-source.ts';
import type { Session, WorkOptions } from './session.ts';

export interface VerifyResult {
  readonly id: string;
  /** Distinct chunks that were read and hashed; 1 for an image of one object. */
  readonly chunks: number;
  /** Plain bytes of them. */
  readonly bytes: number;
  /** The image's locator was damaged, or gone; the server has written it again. */
  readonly locatorMended: boolean;
}

/** Plain bytes asked of the source at once. */
const BATCH_BYTES = 8 * 1024 * 1024;

/**
 * Reads an image from its first chunk to its last and checks each. What is not right is reported to the server, which
 * forgets the chunks that are damaged at rest: the next import with the same content brings them again.
 * @throws CAS_CHUNK_MISMATCH, CAS_CHUNK_MISSING, CAS_ZSTD_INVALID, CAS_MANIFEST_INVALID, CAS_LOCATOR_INVALID
 */
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
      return { id, chunks: 1, bytes: detail.image.virtualBytes, locatorMended: false };
    });
  }
  return stage(onEvent, 'verify', async (finish) => {
    let report = await readChunks(session, id, { onEvent, signal });
    let locatorMended = false;
    if (report.problem !== undefined) {
      const found = await reportDamage(session, id, report.suspects, signal);
      // Whole, and only elsewhere than the locator had it: whether it was written again for this, or by an import meanwhile.
      if (found?.damaged.length === 0) report = await readChunks(session, id, { onEvent, signal });
      if (report.problem !== undefined) throw damageError(ref, report, (found?.damaged.length ?? 0) > 0);
      locatorMended = found?.relocated === true;
    }
    const { chunks, bytes } = report;
    finish({ bytes, items: chunks });
    return { id, chunks, bytes, locatorMended };
  });
}

interface ReadReport {
  readonly chunks: number;
  readonly bytes: number;
  /** What the first chunk that is not right has; or the manifest, or the locator. */
  readonly problem: DecantError | undefined;
  readonly suspects: readonly ChunkId[];
}

/** Codes of what is wrong with bytes that came, and of bytes that are not there. */
const DAMAGE: ReadonlySet<string> = new Set([
  'CAS_CHUNK_MISMATCH',
  'CAS_CHUNK_MISSING',
  'CAS_LOCATOR_INVALID',
  'CAS_MANIFEST_INVALID',
  'CAS_ZSTD_INVALID',
  'OBJECT_NOT_FOUND',
]);
const isDamage = (error: unknown): error is DecantError => isDecantError(error) && DAMAGE.has(error.code);

/** Reads every chunk of an image once and goes on after those that are not right. */
async function readChunks(session: Session, id: string, { onEvent, signal }: WorkOptions): Promise<ReadReport> {
  const suspects: ChunkId[] = [];
  let problem: DecantError | undefined;
  let chunks = 0;
  let bytes = 0;
  let opened: Awaited<ReturnType<typeof openStreamingSource>>;
  try {
    // By id: a name that moves meanwhile does not mix two images. Nothing is taken from the cache.
    opened = await openStreamingSource(session, id, signal);
  } catch (error) {
    signal?.throwIfAborted();
    if (isDamage(error)) return { chunks, bytes, problem: error, suspects };
    throw error;
  }
  const { manifest, source } = opened;
  const hash = await session.hash();
  const check = async (batch: ReadonlyMap<ChunkId, number>): Promise<void> => {
    const left = new Set(batch.keys());
    try {
      for await (const frame of source.get([...batch.keys()], { signal })) {
        left.delete(frame.id);
        try {
          openChunk(frame, { id: frame.id, plainBytes: batch.get(frame.id) ?? 0 }, { hash, codec: session.codec });
        } catch (error) {
          if (!isDamage(error)) throw error;
          problem ??= error;
          suspects.push(frame.id);
        }
        chunks++;
        bytes += frame.plainBytes;
      }
      for (const chunk of left) {
        suspects.push(chunk);
        problem ??= new DecantError('CAS_CHUNK_MISSING', `Chunk ${chunk} is missing.`);
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (!isDamage(error)) throw error;
      problem ??= error;
      // One read fetches many: asked for alone, each says how it is.
      if (batch.size === 1) suspects.push(...left);
      else for (const chunk of left) await check(new Map([[chunk, batch.get(chunk) ?? 0]]));
    }
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
  return { chunks, bytes, problem, suspects };
}

/** Has the server look at what could not be verified; undefined when it cannot. What it found before it failed stays known. */
async function reportDamage(
  session: Session,
  id: string,
  suspects: readonly ChunkId[],
  signal: AbortSignal | undefined,
): Promise<{ readonly damaged: readonly string[]; readonly relocated: boolean } | undefined> {
  const damaged: string[] = [];
  let relocated = false;
  let at = 0;
  try {
    do {
      const ids = suspects.slice(at, at + MAX_MISSING_IDS);
      const options = { body: { ids }, idempotent: true, signal };
      const answer = await session.client.json(checkChunksResponseSchema, 'POST', `${imagePath(id)}/check`, options);
      damaged.push(...answer.damaged);
      relocated ||= answer.relocated;
      at += ids.length;
    } while (at < suspects.length);
  } catch (error) {
    signal?.throwIfAborted();
    if (!isDecantError(error)) throw error;
    return damaged.length > 0 ? { damaged, relocated } : undefined;
  }
  return { damaged, relocated };
}

/** Suspects that an error names. */
const MOST_NAMED = 20;

function damageError(ref: string, { problem, suspects, chunks }: ReadReport, isKnown: boolean): DecantError {
  const first = problem!;
  const many = suspects.length > 1 ? ` It is the first of ${suspects.length} chunks that are not right.` : '';
  return new DecantError(first.code, `${ref} is damaged: ${first.message}${many}`, {
    hint: isKnown
      ? 'Import or build an image with the same content again: this replaces what is damaged, for all images that have it.'
      : (first.hint ?? 'Verify it again. If this stays, import or build the image again.'),
    details: { ...first.details, suspects: suspects.slice(0, MOST_NAMED), suspectCount: suspects.length, chunks },
    cause: first,
  });
}
