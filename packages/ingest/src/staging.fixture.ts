import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import {
  canonicalConfig,
  configDigest,
  createManifestBuilder,
  createPackBuilder,
  type ThreadedCodec,
  type HashProvider,
  type Manifest,
  type ManifestFacts,
} from '@decant/cas';
import { createZstdCodec, loadNodeHashProvider } from '@decant/cas/node';
import {
  PAGE_BYTES,
  parseNamespace,
  toHex,
  type BuildId,
  type ChunkFrame,
  type ChunkId,
  type ChunkLocation,
  type ImageConfig,
  type ImageId,
  type Namespace,
  type ObjectStore,
} from '@decant/core';
import { createFileObjectStore } from '@decant/dataplane';

import type { AdmittedImage, Admission, IngestContext } from './admission.ts';
import { stagingPrefix } from './object-keys.ts';

/** An object store in files, and what a metadata store would remember of two namespaces. */
export interface Bench extends AsyncDisposable {
  readonly directory: string;
  readonly store: ObjectStore;
  readonly hash: HashProvider;
  readonly codec: ThreadedCodec;
  /** What an admission in `namespace` works with. */
  context(namespace?: string, build?: string): IngestContext;
  /** Makes an admission visible, as the metadata store would. */
  commit(namespace: string, admission: Admission): void;
  /** Keys outside the staging areas. */
  restingKeys(): Promise<string[]>;
}

export async function openBench(): Promise<Bench> {
  const directory = await mkdtemp(join(tmpdir(), 'ingest-test-'));
  const store = createFileObjectStore({ directory: join(directory, 'objects'), fsync: 'never' });
  const hash = await loadNodeHashProvider();
  const codec = createZstdCodec();
  const chunks = new Map<string, ChunkLocation>();
  const images = new Map<string, AdmittedImage>();
  return {
    directory,
    store,
    hash,
    codec,
    context(name = 'acme', build = 'build-1') {
      const namespace: Namespace = parseNamespace(name);
      return {
        store,
        hash,
        codec,
        namespace,
        index: {
          locate: async (ids) =>
            new Map(
              ids.flatMap((id) => {
                const location = chunks.get(`${name} ${id}`);
                return location === undefined ? [] : [[id, location] as const];
              }),
            ),
        },
        findAdmitted: async (id: ImageId) => images.get(`${name} ${id}`),
        stagingPrefix: stagingPrefix(namespace, build as BuildId),
        scratchDirectory: directory,
      };
    },
    commit(name, admission) {
      images.set(`${name} ${admission.id}`, admission);
      for (const { key: packKey, chunks: rows } of admission.packs) {
        for (const { id, ...location } of rows) chunks.set(`${name} ${id}`, { ...location, packKey });
      }
    },
    async restingKeys() {
      const keys: string[] = [];
      for await (const { key } of store.list('')) if (!key.includes('/staging/')) keys.push(key);
      return keys;
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

export interface TestImage {
  readonly manifest: Manifest;
  readonly frames: readonly ChunkFrame[];
  readonly config: ImageConfig | null;
  readonly bytes: Uint8Array;
}

/** An image of these stretches: plain bytes of chunks, or the pages of a hole. */
export function imageOf(
  { hash, codec }: Pick<Bench, 'hash' | 'codec'>,
  stretches: readonly (Uint8Array | number)[],
  facts: Partial<ManifestFacts> & { readonly config?: ImageConfig } = {},
): TestImage {
  const { config = null, ...rest } = facts;
  const builder = createManifestBuilder(
    { format: 'raw', layout: 'foreign', architecture: null, configDigest: configDigest(config, hash), ...rest },
    hash,
  );
  const frames = new Map<ChunkId, ChunkFrame>();
  for (const stretch of stretches) {
    if (typeof stretch === 'number') {
      builder.add({ type: 'hole', lengthBytes: stretch * PAGE_BYTES });
      continue;
    }
    const id = toHex(hash.blake3(stretch)) as ChunkId;
    builder.add({ type: 'chunk', id, bytes: stretch });
    // The codec may give its own buffer again.
    const { encoding, stored } = codec.encode(stretch);
    frames.set(id, { id, encoding, plainBytes: stretch.length, stored: stored.slice() });
  }
  const bytes = Buffer.concat(
    stretches.map((stretch) => (typeof stretch === 'number' ? Buffer.alloc(stretch * PAGE_BYTES) : stretch)),
  );
  return { manifest: builder.finish(), frames: [...frames.values()], config, bytes };
}

/** The bytes of one pack with these frames, however untrue they are. */
export function packOf(hash: HashProvider, frames: readonly ChunkFrame[]): Uint8Array {
  const builder = createPackBuilder({ hash });
  const parts = frames.flatMap((frame) => builder.add(frame).map((part) => part.slice()));
  return Buffer.concat([...parts, builder.finish().bytes]);
}

/** Stages an image as a builder would; `packs` replaces the one pack with all its chunks. */
export async function stageImage(
  context: IngestContext,
  image: TestImage,
  packs: readonly Uint8Array[] = [packOf(context.hash, image.frames)],
): Promise<void> {
  const { store, stagingPrefix: prefix } = context;
  for (const [i, pack] of packs.entries()) await store.put(`${prefix}/packs/${String(i).padStart(6, '0')}`, pack);
  if (image.config !== null) await store.put(`${prefix}/config.json`, canonicalConfig(image.config));
  await store.put(`${prefix}/manifest`, image.manifest.bytes);
}

/** Pseudo-random bytes (xorshift32), so that they do not compress. */
export function noise(seed: number, pages: number): Uint8Array {
  const words = new Uint32Array((pages * PAGE_BYTES) / 4);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state >>> 0;
  }
  return new Uint8Array(words.buffer);
}

/** An image of three chunks, one of which occurs twice, and a hole. */
export const sampleImage = (bench: Bench): TestImage =>
  imageOf(bench, [noise(1, 16), 20, noise(2, 16), new Uint8Array(16 * PAGE_BYTES).fill(7), noise(1, 16)], {
    config: { architecture: 'amd64', config: { Cmd: ['/bin/sh'] } },
  });
