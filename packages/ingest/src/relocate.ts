import { parseManifest, type HashProvider, type Manifest } from '@decant/cas';
import {
  DecantError,
  equalBytes,
  isDecantError,
  type ChunkId,
  type ChunkIndex,
  type ImageId,
  type Namespace,
  type ObjectStore,
} from '@decant/core';

import { ChunkLocations } from './chunk-locations.ts';
import { locateChunks } from './locate-chunks.ts';
import { locatorOf } from './locator-of.ts';
import { locatorKey, manifestKey } from './object-keys.ts';
import { restingObject } from './resting-object.ts';

/** Largest manifest that is admitted, in bytes: some 400 GiB of content. */
export const MAX_MANIFEST_BYTES = 64 * 1024 * 1024;
export interface RelocateContext {
  readonly store: ObjectStore;
  readonly hash: HashProvider;
  readonly namespace: Namespace;
  readonly index: ChunkIndex;
  readonly signal?: AbortSignal | undefined;
}

/** Where all chunks of an image lie; undefined when the namespace cannot reach one of them. */
export async function locateAll(
  manifest: Manifest,
  index: ChunkIndex,
  signal: AbortSignal | undefined,
): Promise<ChunkLocations | undefined> {
  const locations = new ChunkLocations(manifest.entryCount);
  for await (const { chunks, found } of locateChunks(manifest, index, signal)) {
    for (const { id, plainBytes, entry } of chunks) {
      const location = found.get(id);
      if (location?.plainBytes !== plainBytes) return undefined;
      locations.set(entry, location);
    }
  }
  return locations;
}

/** The manifest of an admitted image as it rests. @throws CAS_MANIFEST_INVALID when it is damaged or not there */
export async function restingManifest(
  id: ImageId,
  { store, hash, namespace, signal }: RelocateContext,
): Promise<Manifest> {
  const key = manifestKey(namespace, id);
  try {
    const info = await store.head(key, { signal });
    const bytes = await store.get(key, {
      range: { offset: 0, lengthBytes: Math.min(info?.sizeBytes ?? 0, MAX_MANIFEST_BYTES) },
      signal,
    });
    const manifest = parseManifest(bytes, hash, { maxBytes: MAX_MANIFEST_BYTES });
    if (manifest.id === id) return manifest;
    throw new DecantError('CAS_MANIFEST_INVALID', `It is the manifest of ${manifest.id}.`);
  } catch (error) {
    signal?.throwIfAborted();
    const absent = error instanceof RangeError || isDecantError(error, 'OBJECT_NOT_FOUND');
    if (!absent && !isDecantError(error, 'CAS_MANIFEST_INVALID')) throw error;
    throw new DecantError('CAS_MANIFEST_INVALID', `The manifest of ${id} is damaged or not there.`, {
      hint: 'Import or build the image again: this writes its manifest anew.',
      cause: error,
    });
  }
}

/**
 * Writes the locator of an image again, from where its chunks lie by now, when it does not say so already. Without `ids` in
 * the image, nothing is looked at. Returns whether it was written. An image with a chunk that is nowhere keeps its locator.
 * @throws CAS_MANIFEST_INVALID
 */
export async function relocate(id: ImageId, context: RelocateContext, ids?: readonly ChunkId[]): Promise<boolean> {
  const { store, namespace, index, signal } = context;
  const manifest = await restingManifest(id, context);
  if (ids !== undefined && !ids.some((chunk) => manifest.indexOf(chunk) !== undefined)) return false;
  const locations = await locateAll(manifest, index, signal);
  if (locations === undefined) return false;
  const locator = locatorOf(manifest, locations);
  const key = locatorKey(namespace, id);
  const found = await restingObject(store, key, locator.length, signal);
  if (found !== undefined && equalBytes(found, locator)) return false;
  await store.put(key, locator, { signal });
  return true;
}
