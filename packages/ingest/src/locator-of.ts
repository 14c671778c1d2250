import { encodeLocator, type LocatorRecord, type Manifest } from '@decant/cas';
import { DecantError, PAGE_BYTES, type ChunkId } from '@decant/core';

import type { ChunkLocations } from './chunk-locations.ts';

/** The locator of an image all of whose chunks have a place. */
export function locatorOf(manifest: Manifest, locations: ChunkLocations): Uint8Array {
  const packs = new Map<string, number>();
  const recordOf = (id: ChunkId, plainBytes: number): LocatorRecord => {
    const found = locations.get(manifest.indexOf(id) ?? -1);
    if (found === undefined) throw new DecantError('INTERNAL', `Chunk ${id} was admitted nowhere.`);
    const { packKey, ...place } = found;
    const pack = packs.get(packKey) ?? packs.size;
    packs.set(packKey, pack);
    return { pack, plainBytes, ...place };
  };
  // Which packs there are is known once the records have been walked; they are walked again as they are written.
  for (const { id, plainBytes } of manifest.chunks()) recordOf(id, plainBytes);
  const records = function* () {
    for (let i = 0; i < manifest.entryCount; i++) {
      const { id, pages } = manifest.entry(i);
      yield id === null ? null : recordOf(id, pages * PAGE_BYTES);
    }
  };
  return encodeLocator({
    imageId: manifest.id,
    packs: [...packs.keys()].map((key) => ({ key })),
    records: records(),
  });
}
