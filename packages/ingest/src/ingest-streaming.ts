import {
  createImageReader,
  encodeLocator,
  openChunk,
  parseManifest,
  type LocatorRecord,
  type Manifest,
} from '@decant/cas';
import {
  DecantError,
  isDecantError,
  STAGED,
  type ChunkFrame,
  type ChunkId,
  type ChunkLocation,
  type ChunkSource,
} from '@decant/core';

import type { Admission, IngestContext } from './admission.ts';
import { checkFilesystem } from './check-filesystem.ts';
import { admitConfig, readStaged } from './config.ts';
import { locatorKey, manifestKey } from './object-keys.ts';
import { refused } from './refuse.ts';
import { RestPackWriter } from './rest-packs.ts';
import { openStagedChunks, type StagedChunks } from './staged.ts';

/** Largest manifest that is admitted, in bytes: some 400 GiB of content. */
const MAX_MANIFEST_BYTES = 64 * 1024 * 1024;
/** Ids located in one call. */
const LOCATE_BATCH = 16_384;
/** Bytes between two reports of progress. */
const PROGRESS_BYTES = 8 * 1024 * 1024;

/** What the builder declared when it completed. */
export interface StreamingCompletion {
  readonly virtualBytes: number;
}

/**
 * Verifies a staged image and writes it where it will rest. Every staged chunk is read once, decompressed with
 * a cap and hashed; the packs at rest are made from exactly the buffers that were verified. A chunk that was
 * not staged must be one the namespace can reach already: its hash alone is not possession.
 * @throws INGEST_REFUSED, INGEST_CHUNK_UNREACHABLE, ROOTFS_INVALID; nothing has become visible then.
 */
export async function ingestStreaming(completion: StreamingCompletion, context: IngestContext): Promise<Admission> {
  const manifest = await stagedManifest(completion, context);
  const staged = await openStagedChunks(context);
  for (const id of staged.ids()) {
    if (manifest.indexOf(id) === undefined)
      throw refused(`chunk ${id} is staged but not in the manifest.`, { chunk: id });
  }
  const reachable = await locateReachable(manifest, staged, context);
  await checkFilesystem(manifest, checkingReader(manifest, staged, reachable, context), context);
  const configDigest = await admitConfig(manifest.configDigest, context);
  const { packs, newBytes, storedBytes } = await writePacks(manifest, staged, reachable, context);
  const locations = allLocations(reachable, packs);
  const locator = locatorOf(manifest, locations);
  const { store, namespace, signal } = context;
  await store.put(manifestKey(namespace, manifest.id), manifest.bytes, { signal });
  await store.put(locatorKey(namespace, manifest.id), locator, { signal });
  let imageStoredBytes = 0;
  for (const { storedBytes: bytes } of locations.values()) imageStoredBytes += bytes;
  return {
    id: manifest.id,
    record: {
      id: manifest.id,
      format: 'cas-streaming',
      filesystem: manifest.format,
      layout: manifest.layout,
      architecture: manifest.architecture,
      virtualBytes: manifest.virtualBytes,
      contentBytes: manifest.contentBytes,
      chunks: manifest.chunkCount,
      storedBytes: imageStoredBytes,
    },
    configDigest,
    packs,
    counts: {
      chunksTotal: manifest.chunkCount,
      chunksNew: packs.reduce((sum, pack) => sum + pack.chunks.length, 0),
      newBytes,
      storedBytes,
    },
  };
}

async function stagedManifest(completion: StreamingCompletion, context: IngestContext): Promise<Manifest> {
  const bytes = await readStaged(STAGED.manifest, MAX_MANIFEST_BYTES, context);
  let manifest: Manifest;
  try {
    manifest = parseManifest(bytes, context.hash, { maxBytes: MAX_MANIFEST_BYTES });
  } catch (error) {
    if (isDecantError(error)) throw refused(error.message, {}, error);
    throw error;
  }
  if (manifest.virtualBytes !== completion.virtualBytes) {
    throw refused(
      `it was declared with ${completion.virtualBytes} bytes, but the manifest has ${manifest.virtualBytes}.`,
    );
  }
  return manifest;
}

/** Where the chunks lie that the namespace can reach. Chunks that are neither there nor staged end the admission. */
async function locateReachable(
  manifest: Manifest,
  staged: StagedChunks,
  { index, signal }: IngestContext,
): Promise<Map<ChunkId, ChunkLocation>> {
  const reachable = new Map<ChunkId, ChunkLocation>();
  const locate = async (chunks: readonly { id: ChunkId; plainBytes: number }[]) => {
    signal?.throwIfAborted();
    const found = await index.locate(chunks.map(({ id }) => id));
    for (const { id, plainBytes } of chunks) {
      const location = found.get(id);
      const declared = location?.plainBytes ?? staged.plainBytes(id);
      if (declared === undefined) {
        throw new DecantError(
          'INGEST_CHUNK_UNREACHABLE',
          `Chunk ${id} was neither uploaded nor is it one the namespace has.`,
          {
            hint: 'Upload the chunk; knowing its hash is not enough.',
            details: { chunk: id },
          },
        );
      }
      if (declared !== plainBytes)
        throw refused(`chunk ${id} has another length than the manifest says.`, { chunk: id });
      if (location !== undefined) reachable.set(id, location);
    }
  };
  let batch: { id: ChunkId; plainBytes: number }[] = [];
  for (const chunk of manifest.chunks()) {
    batch.push(chunk);
    if (batch.length === LOCATE_BATCH) {
      await locate(batch);
      batch = [];
    }
  }
  await locate(batch);
  return reachable;
}

/** The image as it will be, for the check of its filesystem; every chunk read through it is verified. */
function checkingReader(
  manifest: Manifest,
  staged: StagedChunks,
  reachable: ReadonlyMap<ChunkId, ChunkLocation>,
  context: IngestContext,
) {
  const source: ChunkSource = {
    has: async (ids) => new Set(ids.filter((id) => staged.has(id) || reachable.has(id))),
    async *get(ids) {
      for (const id of ids) {
        const location = reachable.get(id);
        yield location === undefined ? await staged.read(id) : await readAtRest(id, location, context);
      }
    },
  };
  const { hash, codec } = context;
  return createImageReader(manifest, source, { hash, codec });
}

async function readAtRest(id: ChunkId, location: ChunkLocation, { store, signal }: IngestContext): Promise<ChunkFrame> {
  const { packKey, offset, storedBytes: lengthBytes, plainBytes, encoding } = location;
  const stored = await store.get(packKey, { range: { offset, lengthBytes }, signal });
  return { id, encoding, plainBytes, stored };
}

async function writePacks(
  manifest: Manifest,
  staged: StagedChunks,
  reachable: ReadonlyMap<ChunkId, ChunkLocation>,
  context: IngestContext,
) {
  const { hash, codec, onProgress, signal } = context;
  const writer = new RestPackWriter(context);
  let newBytes = 0;
  let storedBytes = 0;
  let doneBytes = 0;
  let reportedBytes = 0;
  onProgress?.(0, staged.storedBytes);
  for (const { id, plainBytes } of manifest.chunks()) {
    signal?.throwIfAborted();
    if (!staged.has(id)) continue;
    const frame = await staged.read(id);
    try {
      openChunk(frame, { id, plainBytes }, { hash, codec });
    } catch (error) {
      if (isDecantError(error)) throw refused(error.message, { chunk: id }, error);
      throw error;
    }
    doneBytes += frame.stored.length;
    if (doneBytes - reportedBytes >= PROGRESS_BYTES) {
      onProgress?.(doneBytes, staged.storedBytes);
      reportedBytes = doneBytes;
    }
    // Admitted by somebody else since the builder asked: verified like the rest, but not stored twice.
    if (reachable.has(id)) continue;
    await writer.add(frame);
    newBytes += plainBytes;
    storedBytes += frame.stored.length;
  }
  const packs = await writer.finish();
  onProgress?.(staged.storedBytes, staged.storedBytes);
  return { packs, newBytes, storedBytes };
}

function allLocations(
  reachable: ReadonlyMap<ChunkId, ChunkLocation>,
  packs: Admission['packs'],
): ReadonlyMap<ChunkId, ChunkLocation> {
  const locations = new Map(reachable);
  for (const { key: packKey, chunks } of packs) {
    for (const { id, ...location } of chunks) locations.set(id, { ...location, packKey });
  }
  return locations;
}

function locatorOf(manifest: Manifest, locations: ReadonlyMap<ChunkId, ChunkLocation>): Uint8Array {
  const packs = new Map<string, number>();
  const records: (LocatorRecord | null)[] = [];
  for (let i = 0; i < manifest.entryCount; i++) {
    const { id } = manifest.entry(i);
    if (id === null) {
      records.push(null);
      continue;
    }
    const location = locations.get(id);
    if (location === undefined) throw new DecantError('INTERNAL', `Chunk ${id} was admitted nowhere.`);
    const { packKey, ...rest } = location;
    const pack = packs.get(packKey) ?? packs.size;
    packs.set(packKey, pack);
    records.push({ pack, ...rest });
  }
  return encodeLocator({ imageId: manifest.id, packs: [...packs.keys()].map((key) => ({ key })), records });
}
