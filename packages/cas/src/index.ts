export {
  createChunkLoader,
  type ChunkLoader,
  type ChunkLoaderOptions,
  type ChunkLoaderStats,
} from './store/chunk-loader.ts';
export { createMemoryChunkStore, type ChunkStore } from './store/chunk-store.ts';
export { chunkImage, type ChunkImageOptions } from './chunk/chunker.ts';
export type { ChunkCodec, EncodedChunk, ThreadedCodec } from './chunk/codec.ts';
export { createDecoderCodec, type DecompressZstd } from './chunk/decoder-codec.ts';
export { CUT_RULES, MAX_HOLE_PAGES, STRIPE_PAGES, type ChunkLayout, type CutRules } from './chunk/cut-rules.ts';
export { checkHashProvider } from './hash/hash-check.ts';
export type {
  Blake3Functions,
  Blake3Options,
  HashProvider,
  IncrementalHash,
  Sha256Functions,
} from './hash/hash-provider.ts';
export { loadHashProvider } from './hash/load-hash-provider.ts';
export { canonicalConfig, configDigest, IMAGE_ID_CONTEXT, imageId } from './manifest/image-id.ts';
export { openImageCutter, type ImageChunk, type ImageCutter, type ImageCutterOptions } from './image-cutter.ts';
export { readImage } from './image/read-image.ts';
export { createImageReader, type ImageReaderOptions } from './image/image-reader.ts';
export {
  encodeLocator,
  parseLocator,
  type Locator,
  type LocatorLimits,
  type LocatorPack,
  type LocatorRecord,
} from './pack/locator.ts';
export {
  createManifestBuilder,
  encodeManifest,
  type ManifestBuilder,
  type ManifestStretch,
} from './manifest/manifest-builder.ts';
export {
  manifestIndexRange,
  parseManifestHead,
  verifyManifestPage,
  type ManifestEntry,
  type ManifestHead,
} from './manifest/manifest-head.ts';
export {
  MANIFEST_HEADER_BYTES,
  MANIFEST_PAGE_ENTRIES,
  MAX_CHUNK_BYTES,
  type ManifestFacts,
  type ManifestLimits,
} from './manifest/manifest-layout.ts';
export { parseManifest, type Manifest, type ManifestChunk } from './manifest/manifest.ts';
export { createMemoryRandomAccess } from './image/memory-random-access.ts';
export { openChunk, verifyChunk, verifyChunkAside, type ExpectedChunk } from './chunk/open-chunk.ts';
export { createPackBuilder, type FinishedPack, type PackBuilder, type PackBuilderOptions } from './pack-builder.ts';
export { MAX_PACK_BYTES, MAX_PACK_CHUNKS, PACK_HEAD_BYTES, type PackRow } from './pack/pack-layout.ts';
export { createHttpRanges, type HttpRangesOptions } from './pack/http-ranges.ts';
export { createObjectSource, type ObjectSourceOptions } from './pack/object-source.ts';
export type { ReadPackRange } from './pack/read-frames.ts';
export { createPackSource, type PackSourceOptions } from './pack/pack-source.ts';
export { packFrame, readPackTable, type PackTable } from './pack/pack-table.ts';
export type { DataPages, PageHasher } from './page-hasher.ts';
export type { ImagePiece } from './chunk/piece.ts';
export type { RandomAccess } from './image/random-access.ts';
export { checkZstdFrame } from './chunk/zstd-frame.ts';
