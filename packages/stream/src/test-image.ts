import { chunkImage, createManifestBuilder, type Manifest } from '@decant/cas';
import { createZstdCodec, loadNodeHashProvider } from '@decant/cas/node';
import { DecantError, type ChunkFrame, type ChunkId, type ChunkSource } from '@decant/core';

/** A small image, its chunks and a source that counts: what the tests of this package read. */
export interface TestImage {
  readonly bytes: Uint8Array;
  readonly manifest: Manifest;
  readonly frames: Map<ChunkId, ChunkFrame>;
  /** Ids of each call to the source. */
  readonly calls: ChunkId[][];
  readonly source: ChunkSource;
  /** What happens before a frame is given; may delay or throw. */
  before: (id: ChunkId, signal: AbortSignal | undefined) => Promise<void>;
}

export const hash = await loadNodeHashProvider();
export const codec = createZstdCodec();

/** Seeded bytes, half of them compressible, with a hole in the middle. */
export async function makeTestImage(sizeBytes: number, seed = 1): Promise<TestImage> {
  const bytes = new Uint8Array(sizeBytes);
  let state = seed;
  for (let i = 0; i < sizeBytes; i++) {
    if (i > sizeBytes * 0.4 && i < sizeBytes * 0.6) continue;
    if (i % 65_536 < 32_768) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      bytes[i] = state >>> 24;
    } else bytes[i] = (i >> 12) & 255;
  }
  const facts = { format: 'raw', layout: 'foreign', architecture: null, configDigest: new Uint8Array(32) } as const;
  const builder = createManifestBuilder(facts, hash);
  const frames = new Map<ChunkId, ChunkFrame>();
  for await (const stretch of chunkImage([{ type: 'data', bytes }], { layout: 'foreign', hash })) {
    builder.add(stretch);
    if (stretch.type !== 'chunk' || frames.has(stretch.id)) continue;
    const { encoding, stored } = codec.encode(stretch.bytes);
    frames.set(stretch.id, { id: stretch.id, encoding, plainBytes: stretch.bytes.length, stored: stored.slice() });
  }
  const calls: ChunkId[][] = [];
  const image: TestImage = {
    bytes,
    manifest: builder.finish(),
    frames,
    calls,
    before: () => Promise.resolve(),
    source: {
      has: (ids) => Promise.resolve(new Set(ids.filter((id) => frames.has(id)))),
      async *get(ids, { signal } = {}) {
        calls.push([...ids]);
        for (const id of ids) {
          await image.before(id, signal);
          const frame = frames.get(id);
          if (frame === undefined) throw new DecantError('CAS_CHUNK_MISSING', `There is no chunk ${id}.`);
          yield frame;
        }
      },
    },
  };
  return image;
}
