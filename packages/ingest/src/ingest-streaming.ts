import {
  createImageReader,
  createObjectSource,
  parseManifest,
  verifyChunkAside,
  type ExpectedChunk,
  type Manifest,
} from '@decant/cas';
import {
  DecantError,
  equalBytes,
  isDecantError,
  PAGE_BYTES,
  releaseBytes,
  STAGED,
  type ChunkFrame,
  type ChunkId,
  type ChunkSource,
} from '@decant/core';

import { repeatedAdmission, type Admission, type IngestContext } from './admission.ts';
import { checkFilesystem } from './check-filesystem.ts';
import { restingObject } from './resting-object.ts';
import { ChunkLocations } from './chunk-locations.ts';
import { admitConfig, readStaged } from './config.ts';
import { locateChunks } from './locate-chunks.ts';
import { locatorOf } from './locator-of.ts';
import { locatorKey, manifestKey } from './object-keys.ts';
import { refused } from './refuse.ts';
import { RestPackWriter } from './rest-packs.ts';
import { locateAll, MAX_MANIFEST_BYTES } from './relocate.ts';
import { openStagedChunks, type StagedChunks } from './staged.ts';

/** Staged chunks that are decompressed at once, on libuv's threads. */
const AT_ONCE = 3;
/** Bytes between two reports of progress. */
const PROGRESS_BYTES = 8 * 1024 * 1024;

/** What the builder declared when it completed. */
export interface StreamingCompletion {
  readonly virtualBytes: number;
}

/**
 * Verifies a staged image and writes it where it will rest. Every staged chunk is read once, decompressed with
 * a cap and hashed; the packs at rest are made from exactly the buffers that were verified. A chunk that was
 * not staged must be one the namespace can reach already: its hash alone is not possession. Of an image that the
 * namespace has admitted before, no chunk is read and nothing is written, unless its manifest, its locator or a chunk was found
 * damaged: then this replaces it.
 * @throws INGEST_REFUSED, INGEST_CHUNK_UNREACHABLE, ROOTFS_INVALID; nothing has become visible then.
 */
export async function ingestStreaming(completion: StreamingCompletion, context: IngestContext): Promise<Admission> {
  const manifest = await stagedManifest(completion, context);
  const admitted = await context.findAdmitted(manifest.id);
  if (admitted !== undefined && (await isWhole(manifest, context))) return repeatedAdmission(admitted);
  const staged = await openStagedChunks(manifest, context);
  const locations = await locateReachable(manifest, staged, context);
  await checkFilesystem(manifest, checkingReader(manifest, staged, locations, context), context);
  const configDigest = await admitConfig(manifest.configDigest, context);
  const written = await writePacks(manifest, staged, locations, context);
  let storedBytes = 0;
  for (const { entry } of manifest.chunks()) storedBytes += locations.get(entry)?.storedBytes ?? 0;
  const { store, namespace, signal } = context;
  await store.put(manifestKey(namespace, manifest.id), manifest.bytes, { signal });
  await store.put(locatorKey(namespace, manifest.id), locatorOf(manifest, locations), { signal });
  const { packs, ...counts } = written;
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
      storedBytes,
    },
    configDigest,
    repeated: false,
    packs,
    counts: { chunksTotal: manifest.chunkCount, ...counts },
  };
}

/** Whether the manifest and the locator rest as they should be, and the place of every chunk is known. */
async function isWhole(manifest: Manifest, context: IngestContext): Promise<boolean> {
  const { store, namespace, index, signal } = context;
  const resting = await restingObject(store, manifestKey(namespace, manifest.id), manifest.bytes.length, signal);
  if (resting === undefined || !equalBytes(resting, manifest.bytes)) return false;
  const locations = await locateAll(manifest, index, signal);
  if (locations === undefined) return false;
  const locator = locatorOf(manifest, locations);
  const found = await restingObject(store, locatorKey(namespace, manifest.id), locator.length, signal);
  return found !== undefined && equalBytes(found, locator);
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
  if (manifest.layout === 'hinted' && manifest.format !== 'erofs') {
    // Who runs an image trusts the layouts of decant's own writer, which makes nothing but EROFS in chunks.
    throw refused(`no ${manifest.format} image of decant's own layout is made of chunks.`);
  }
  return manifest;
}

/** Where the chunks lie that the namespace can reach. Chunks that are neither there nor staged end the admission. */
async function locateReachable(
  manifest: Manifest,
  staged: StagedChunks,
  { index, signal }: IngestContext,
): Promise<ChunkLocations> {
  const locations = new ChunkLocations(manifest.entryCount);
  for await (const { chunks, found } of locateChunks(manifest, index, signal)) {
    for (const { id, plainBytes, entry } of chunks) {
      const location = found.get(id);
      const declared = location?.plainBytes ?? staged.plainBytes(entry);
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
      if (location !== undefined) locations.set(entry, location);
    }
  }
  return locations;
}

/** The image as it will be, for the check of its filesystem; every chunk read through it is verified. */
function checkingReader(manifest: Manifest, staged: StagedChunks, locations: ChunkLocations, context: IngestContext) {
  const { hash, codec, store } = context;
  const entryOf = (id: ChunkId) => {
    const entry = manifest.indexOf(id);
    if (entry === undefined) throw new DecantError('CAS_CHUNK_MISSING', `Chunk ${id} is not one of the image.`);
    return entry;
  };
  const locate = (id: ChunkId) => {
    const entry = entryOf(id);
    return { ...locations.get(entry)!, plainBytes: manifest.entry(entry).pages * PAGE_BYTES };
  };
  const atRest = createObjectSource({
    store,
    index: { locate: async (ids) => new Map(ids.map((id) => [id, locate(id)])) },
  });
  const source: ChunkSource = {
    has: async (ids) => new Set(ids.filter((id) => manifest.indexOf(id) !== undefined)),
    async *get(ids) {
      const rest: ChunkId[] = [];
      for (const id of ids) {
        const entry = entryOf(id);
        if (locations.has(entry)) rest.push(id);
        else yield await staged.read(entry);
      }
      yield* atRest.get(rest, { signal: context.signal });
    },
  };
  return createImageReader(manifest, source, { hash, codec });
}

/** Verifies every staged chunk and writes those that are new; `locations` knows them afterwards. */
async function writePacks(manifest: Manifest, staged: StagedChunks, locations: ChunkLocations, context: IngestContext) {
  const { hash, codec, onProgress, signal } = context;
  await using writer = new RestPackWriter(context);
  let chunksNew = 0;
  let newBytes = 0;
  let storedBytes = 0;
  let doneBytes = 0;
  let reportedBytes = 0;
  const open = async (frame: ChunkFrame, expected: ExpectedChunk): Promise<void> => {
    try {
      await verifyChunkAside(frame, expected, { hash, codec });
    } catch (error) {
      if (isDecantError(error)) throw refused(error.message, { chunk: expected.id }, error);
      throw error;
    }
  };
  const atWork: { readonly entry: number; readonly frame: ChunkFrame; readonly opened: Promise<void> }[] = [];
  const writeFirst = async () => {
    const first = atWork.shift();
    if (first === undefined) return;
    const { entry, frame, opened } = first;
    await opened;
    doneBytes += frame.stored.length;
    if (doneBytes - reportedBytes >= PROGRESS_BYTES) {
      onProgress?.(doneBytes, staged.storedBytes);
      reportedBytes = doneBytes;
    }
    // Admitted by somebody else since the builder asked: verified like the rest, but not stored twice.
    if (!locations.has(entry)) {
      await writer.add(frame);
      chunksNew++;
      newBytes += frame.plainBytes;
      storedBytes += frame.stored.length;
    }
    releaseBytes(frame.stored);
  };
  onProgress?.(0, staged.storedBytes);
  for (const { id, plainBytes, entry } of manifest.chunks()) {
    signal?.throwIfAborted();
    if (!staged.has(entry)) continue;
    if (atWork.length === AT_ONCE) await writeFirst();
    const frame = await staged.readInOrder(entry);
    const opened = open(frame, { id, plainBytes });
    // Whoever awaits it gets its failure; until then it must not count as unhandled.
    opened.catch(() => undefined);
    atWork.push({ entry, frame, opened });
  }
  while (atWork.length > 0) await writeFirst();
  const packs = await writer.finish();
  for (const { key: packKey, chunks } of packs) {
    for (const { id, ...place } of chunks) locations.set(manifest.indexOf(id)!, { ...place, packKey });
  }
  onProgress?.(staged.storedBytes, staged.storedBytes);
  return { packs, chunksNew, newBytes, storedBytes };
}
