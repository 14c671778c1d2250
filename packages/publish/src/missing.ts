import { parseManifest, type HashProvider } from '@decant/cas';
import {
  DecantError,
  isDecantError,
  MAX_MISSING_IDS,
  missingChunksResponseSchema,
  parseChunkId,
  type ChunkId,
} from '@decant/core';
import type { HttpClient } from '@decant/transport';

/** Largest manifest of an earlier version that is read to save questions, in bytes. */
const MAX_KNOWN_MANIFEST_BYTES = 64 * 1024 * 1024;

/** The chunks of the image a name points to now: the server has them, so they need not be asked about. */
export async function chunksOfName(
  client: HttpClient,
  name: string,
  hash: HashProvider,
  signal?: AbortSignal,
): Promise<ReadonlySet<ChunkId>> {
  try {
    const path = `/v1/images/${encodeURIComponent(name)}/manifest`;
    const bytes = await client.bytes(path, {
      query: { whole: 'true' },
      maxBytes: MAX_KNOWN_MANIFEST_BYTES,
      signal,
    });
    return new Set(parseManifest(bytes, hash).chunkIds());
  } catch (error) {
    signal?.throwIfAborted();
    // A new name, one of an ext4 image, an image too large to be worth it, or damage in the store: then the server is asked.
    if (isDecantError(error)) return new Set();
    throw error;
  }
}

/** Those of `ids` that the namespace cannot reach yet. At most 16,384 ids. */
export async function missingChunks(
  client: HttpClient,
  ids: readonly ChunkId[],
  signal?: AbortSignal,
): Promise<ReadonlySet<ChunkId>> {
  if (ids.length > MAX_MISSING_IDS) throw new DecantError('INTERNAL', 'Too many chunks were asked about at once.');
  const { missing } = await client.json(missingChunksResponseSchema, 'POST', '/v1/chunks/missing', {
    body: { ids },
    idempotent: true,
    signal,
  });
  return new Set(missing.map(parseChunkId));
}
