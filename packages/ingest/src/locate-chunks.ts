import type { Manifest, ManifestChunk } from '@decant/cas';
import type { ChunkId, ChunkIndex, ChunkLocation } from '@decant/core';

/** Ids located in one call. */
const LOCATE_BATCH = 16_384;

export interface LocatedChunks {
  readonly chunks: readonly ManifestChunk[];
  readonly found: ReadonlyMap<ChunkId, ChunkLocation>;
}

/** Where the chunks of an image lie that a namespace can reach, many at a time. */
export async function* locateChunks(
  manifest: Manifest,
  index: ChunkIndex,
  signal: AbortSignal | undefined,
): AsyncGenerator<LocatedChunks, void, undefined> {
  let chunks: ManifestChunk[] = [];
  const located = async (): Promise<LocatedChunks> => {
    signal?.throwIfAborted();
    return { chunks, found: await index.locate(chunks.map(({ id }) => id)) };
  };
  for (const chunk of manifest.chunks()) {
    chunks.push(chunk);
    if (chunks.length < LOCATE_BATCH) continue;
    yield await located();
    chunks = [];
  }
  if (chunks.length > 0) yield await located();
}
