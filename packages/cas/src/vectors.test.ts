import { readFile } from 'node:fs/promises';

import { PAGE_BYTES, type ChunkId, type ImageConfig, type ImageId } from '@decant/core';
import { blake3 } from '@noble/hashes/blake3.js';
import { describe, expect, it } from 'vitest';

import { chunkImage } from './chunk/chunker.ts';
import { pageHash, type ChunkLayout } from './chunk/cut-rules.ts';
import { loadHashProvider } from './hash/load-hash-provider.ts';
import { canonicalConfig, configDigest } from './manifest/image-id.ts';
import { encodeLocator, parseLocator, type LocatorRecord } from './pack/locator.ts';
import { encodeManifest, type ManifestStretch } from './manifest/manifest-builder.ts';
import type { ManifestEntry } from './manifest/manifest-head.ts';
import { parseManifest } from './manifest/manifest.ts';
import { createMemoryRandomAccess } from './image/memory-random-access.ts';
import { createZstdCodec } from './node/zstd-codec.ts';
import { openChunk } from './chunk/open-chunk.ts';
import { createPackBuilder } from './pack-builder.ts';
import type { PackRow } from './pack/pack-layout.ts';
import { packFrame, readPackTable } from './pack/pack-table.ts';
import type { ImagePiece } from './chunk/piece.ts';
import { collect, randomPages } from './test-data.ts';

const folder = new URL('../vectors/', import.meta.url);
const binary = async (name: string) => new Uint8Array(await readFile(new URL(name, folder)));
const json = async <T>(name: string) => JSON.parse(await readFile(new URL(name, folder), 'utf8')) as T;
const hash = await loadHashProvider();
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

type Step = { random: number; pages: number } | { zeros: number } | { bytes: string } | { cut: true };
type Stretch = { chunk: ChunkId; pages: number } | { hole: number };

interface ChunkingVectors {
  readonly pageHashes: readonly { readonly random?: number; readonly hash: number }[];
  readonly image: readonly Step[];
  readonly hinted: readonly Stretch[];
  readonly foreign: readonly Stretch[];
}

interface ContainerVectors {
  readonly config: ImageConfig;
  readonly configJson: string;
  readonly configDigest: string;
  readonly imageId: ImageId;
  readonly virtualBytes: number;
  readonly contentBytes: number;
  readonly entries: readonly ManifestEntry[];
  readonly plains: readonly { readonly random?: number; readonly fill?: number; pages: number; readonly id: ChunkId }[];
  readonly pack: { readonly digest: string; readonly rows: readonly PackRow[] };
  readonly locator: { readonly packs: readonly { key: string }[]; readonly records: readonly (LocatorRecord | null)[] };
}

function pieceOf(step: Step): ImagePiece {
  if ('cut' in step) return { type: 'cut' };
  if ('zeros' in step) return { type: 'zeros', lengthBytes: step.zeros * PAGE_BYTES };
  if ('bytes' in step) return { type: 'data', bytes: new Uint8Array(Buffer.from(step.bytes, 'hex')) };
  return { type: 'data', bytes: randomPages(step.random, step.pages) };
}

describe('the committed vectors', async () => {
  const chunking = await json<ChunkingVectors>('chunking.json');
  const containers = await json<ContainerVectors>('containers.json');

  it('hold for page hashes', () => {
    for (const { random, hash } of chunking.pageHashes) {
      const page = random === undefined ? new Uint8Array(PAGE_BYTES) : randomPages(random, 1);
      expect(pageHash(new Uint32Array(page.buffer), 0)).toBe(hash);
    }
  });

  it.each(['hinted', 'foreign'] as ChunkLayout[])('hold for %s chunks', async (layout) => {
    const chunks = await collect(chunkImage(chunking.image.map(pieceOf), { layout, hash }));
    const actual = chunks.map((chunk) =>
      chunk.type === 'hole'
        ? { hole: chunk.lengthBytes / PAGE_BYTES }
        : { chunk: hex(blake3(chunk.bytes)), pages: chunk.bytes.length / PAGE_BYTES },
    );
    expect(actual).toEqual(chunking[layout]);
  });

  it('hold for the configuration digest', () => {
    expect(new TextDecoder().decode(canonicalConfig(containers.config))).toBe(containers.configJson);
    expect(hex(configDigest(containers.config, hash))).toBe(containers.configDigest);
    expect(hex(blake3(new TextEncoder().encode(containers.configJson)))).toBe(containers.configDigest);
  });

  it('hold for the manifest, read and written', async () => {
    const bytes = await binary('manifest-v1.bin');
    const manifest = parseManifest(bytes, hash);
    const context = new TextEncoder().encode('decant 2026-11 image manifest v1');
    expect(manifest.id).toBe(containers.imageId);
    expect(manifest.id).toBe(`cas-v1:${hex(blake3(bytes.subarray(0, 256), { context }))}`);
    const { virtualBytes, contentBytes } = containers;
    expect(manifest).toMatchObject({ virtualBytes, contentBytes, format: 'erofs', layout: 'hinted' });
    expect(containers.entries.map((_, i) => manifest.entry(i))).toEqual(containers.entries);
    const stretches = containers.entries.map(({ id, pages }): ManifestStretch => {
      const lengthBytes = pages * PAGE_BYTES;
      return id === null ? { type: 'hole', lengthBytes } : { type: 'chunk', id, lengthBytes };
    });
    expect(encodeManifest(manifest, stretches, hash)).toEqual(bytes);
  });

  it('hold for the pack, read and written', async () => {
    const bytes = await binary('pack-v1.bin');
    const source = createMemoryRandomAccess(bytes);
    const table = await readPackTable(source, { hash });
    expect([...table.rows()]).toEqual(containers.pack.rows);
    expect(hex(blake3(bytes))).toBe(containers.pack.digest);
    const builder = createPackBuilder({ hash });
    for (const [i, { id, random, fill, pages }] of containers.plains.entries()) {
      const plain = random === undefined ? new Uint8Array(pages * PAGE_BYTES).fill(fill!) : randomPages(random, pages);
      const frame = await packFrame(source, table.row(i));
      expect(openChunk(frame, { id, plainBytes: plain.length }, { hash, codec: createZstdCodec() })).toEqual(plain);
      builder.add(frame);
    }
    expect(builder.finish().digest).toBe(containers.pack.digest);
  });

  it('hold for the locator, read and written', async () => {
    const bytes = await binary('locator-v1.bin');
    const locator = parseLocator(bytes);
    const { packs, records } = containers.locator;
    expect(locator.imageId).toBe(containers.imageId);
    expect(locator.packs.map(({ key }) => ({ key }))).toEqual(packs);
    expect(records.map((_, i) => locator.record(i))).toEqual(records);
    expect(encodeLocator({ imageId: containers.imageId, packs, records })).toEqual(bytes);
  });
});
