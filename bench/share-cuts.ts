import { createReadStream } from 'node:fs';

import { chunkImage, type ChunkLayout, type HashProvider, type ImageChunk, type ImagePiece } from '@decant/cas';
import { PAGE_BYTES } from '@decant/core';

/** What an image is cut into, without the bytes. */
export interface CutImage {
  /** Plain bytes of each chunk, by id; a chunk that appears twice is here once. */
  readonly chunks: ReadonlyMap<string, number>;
  /** First eight bytes of the BLAKE3 digest of every page that is not in a hole. */
  readonly pages: ReadonlySet<string>;
  readonly contentBytes: number;
  readonly virtualBytes: number;
  readonly chunkCount: number;
  readonly entryCount: number;
}

export interface CutOptions {
  readonly layout: ChunkLayout;
  readonly hash: HashProvider;
  /** Told of every stretch in image order. */
  readonly onStretch?: ((stretch: ImageChunk) => void) | undefined;
}

/** Cuts an image and notes its chunks and pages. */
export async function cutImage(
  pieces: AsyncIterable<ImagePiece> | Iterable<ImagePiece>,
  { layout, hash, onStretch }: CutOptions,
): Promise<CutImage> {
  const chunks = new Map<string, number>();
  const pages = new Set<string>();
  let contentBytes = 0;
  let virtualBytes = 0;
  let chunkCount = 0;
  let entryCount = 0;
  for await (const stretch of chunkImage(pieces, { layout, hash })) {
    entryCount++;
    onStretch?.(stretch);
    if (stretch.type === 'hole') {
      virtualBytes += stretch.lengthBytes;
      continue;
    }
    const { id, bytes } = stretch;
    chunkCount++;
    contentBytes += bytes.length;
    virtualBytes += bytes.length;
    if (chunks.has(id)) continue;
    chunks.set(id, bytes.length);
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
      const digest = hash.blake3(bytes.subarray(at, at + PAGE_BYTES));
      pages.add(Buffer.from(digest.buffer, digest.byteOffset, 8).toString('latin1'));
    }
  }
  return { chunks, pages, contentBytes, virtualBytes, chunkCount, entryCount };
}

/** An image file as pieces, without hints. */
export async function* filePieces(file: string): AsyncGenerator<ImagePiece, void, undefined> {
  for await (const bytes of createReadStream(file, { highWaterMark: 1024 * 1024 })) {
    yield { type: 'data', bytes: bytes as Buffer };
  }
}

/** What the second image has and the first has not. */
export interface Novelty {
  readonly newBytes: number;
  readonly newChunks: number;
  /** New bytes if every page were a chunk of its own. */
  readonly pageIdealBytes: number;
  /** newBytes ÷ the bytes of all chunks of the second. */
  readonly newShare: number;
}

export function noveltyOf(before: CutImage, after: CutImage): Novelty {
  let newBytes = 0;
  let newChunks = 0;
  let bytes = 0;
  for (const [id, length] of after.chunks) {
    bytes += length;
    if (before.chunks.has(id)) continue;
    newBytes += length;
    newChunks++;
  }
  let newPages = 0;
  for (const page of after.pages) if (!before.pages.has(page)) newPages++;
  return { newBytes, newChunks, pageIdealBytes: newPages * PAGE_BYTES, newShare: newBytes / bytes };
}
