import { concatBytes, type ChunkFrame, type ChunkId } from '@decant/core';

import type { HashProvider } from '../hash/hash-provider.ts';
import { encodeManifest } from '../manifest/manifest-builder.ts';
import { parseManifest, type Manifest } from '../manifest/manifest.ts';
import { createPackBuilder } from '../pack-builder.ts';
import { FACTS } from '../test-data.ts';
import { encodeLocator, parseLocator, type Locator, type LocatorRecord } from './locator.ts';

/** An image of frames in packs: what sources over packs are tested with. */
export interface TestPacks {
  readonly manifest: Manifest;
  readonly locator: Locator;
  readonly packs: readonly Uint8Array<ArrayBuffer>[];
  readonly places: ReadonlyMap<ChunkId, LocatorRecord>;
}

/** Packs of frames with different ids, so many in each; the image has them in the same order. */
export function packsOf(frames: readonly ChunkFrame[], hash: HashProvider, chunksPerPack = 100): TestPacks {
  const packs: Uint8Array<ArrayBuffer>[] = [];
  const places = new Map<ChunkId, LocatorRecord>();
  for (let from = 0; from < frames.length; from += chunksPerPack) {
    const builder = createPackBuilder({ hash });
    const parts = frames.slice(from, from + chunksPerPack).flatMap((frame) => builder.add(frame));
    const { bytes, table } = builder.finish();
    for (const { id, ...row } of table.rows()) places.set(id, { pack: packs.length, ...row });
    packs.push(concatBytes([...parts, bytes]));
  }
  const stretches = frames.map(({ id, plainBytes }) => ({ type: 'chunk', id, lengthBytes: plainBytes }) as const);
  const manifest = parseManifest(encodeManifest(FACTS, stretches, hash), hash);
  const records = frames.map(({ id }) => places.get(id)!);
  const encoded = { imageId: manifest.id, packs: packs.map((_, i) => ({ key: `packs/${i}` })), records };
  return { manifest, locator: parseLocator(encodeLocator(encoded)), packs, places };
}
