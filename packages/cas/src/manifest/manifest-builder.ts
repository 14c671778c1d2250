import { DecantError, fromHex, PAGE_BYTES, type ChunkId } from '@decant/core';

import { GrowingBytes, viewOf, writeU64 } from '../bytes/bytes-reader.ts';
import { MAX_HOLE_PAGES } from '../chunk/cut-rules.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import {
  ARCHITECTURES,
  DEFAULT_MANIFEST_LIMITS,
  FORMATS,
  HEADER,
  HOLE_FLAG,
  LAYOUTS,
  MANIFEST_ENTRY_BYTES,
  MANIFEST_HEADER_BYTES,
  MANIFEST_INDEX_ROW_BYTES,
  MANIFEST_MAGIC,
  MANIFEST_PAGE_ENTRIES,
  MANIFEST_VERSION,
  manifestBytes,
  MAX_CHUNK_BYTES,
  type ManifestFacts,
  type ManifestLimits,
} from './manifest-layout.ts';
import { parseManifest, type Manifest } from './manifest.ts';

/** What a manifest takes: the stretches of `chunkImage`, or the same without bytes. */
export type ManifestStretch =
  | { readonly type: 'chunk'; readonly id: ChunkId; readonly bytes: Uint8Array }
  | { readonly type: 'chunk'; readonly id: ChunkId; readonly lengthBytes: number }
  /** Named by the 32 bytes of its digest. */
  | { readonly type: 'chunk'; readonly digest: Uint8Array; readonly lengthBytes: number }
  | { readonly type: 'hole'; readonly lengthBytes: number };

export interface ManifestBuilder {
  /**
   * Adds the next stretch of the image. Holes that adjoin become one, and one longer than 2^26 pages is split.
   * @throws RangeError for a length that is not 1 to 1,024 pages (chunk) or not whole pages (hole);
   * LIMIT_EXCEEDED when the manifest or the image would pass the limits.
   */
  add(stretch: ManifestStretch): void;
  /** The manifest; the builder is of no use afterwards. */
  finish(): Manifest;
}

/** Collects an image's chunks into a manifest; 40 bytes of memory for each. */
export function createManifestBuilder(
  facts: ManifestFacts,
  hash: HashProvider,
  limits: ManifestLimits = {},
): ManifestBuilder {
  const maxBytes = limits.maxBytes ?? DEFAULT_MANIFEST_LIMITS.maxBytes;
  const maxVirtualBytes = limits.maxVirtualBytes ?? DEFAULT_MANIFEST_LIMITS.maxVirtualBytes;
  if (facts.configDigest.length !== 32) throw new RangeError('a configuration digest has 32 bytes');
  const entries = new GrowingBytes(MANIFEST_PAGE_ENTRIES * MANIFEST_ENTRY_BYTES);
  const starts: number[] = [];
  let virtualPages = 0;
  let contentPages = 0;
  let holePages = 0;

  const entry = (id: Uint8Array | undefined, pages: number) => {
    const number = entries.length / MANIFEST_ENTRY_BYTES;
    if (manifestBytes(number + 1) > maxBytes || (virtualPages + pages) * PAGE_BYTES > maxVirtualBytes) {
      throw new DecantError('LIMIT_EXCEEDED', 'The image has more bytes or more chunks than a manifest may hold.', {
        details: { maxVirtualBytes, maxManifestBytes: maxBytes },
      });
    }
    if (number % MANIFEST_PAGE_ENTRIES === 0) starts.push(virtualPages);
    const bytes = entries.extend(MANIFEST_ENTRY_BYTES);
    if (id !== undefined) bytes.set(id);
    const view = viewOf(bytes);
    view.setUint32(32, pages, true);
    view.setUint32(36, id === undefined ? HOLE_FLAG : 0, true);
    virtualPages += pages;
  };
  const flushHole = () => {
    while (holePages > 0) {
      const pages = Math.min(holePages, MAX_HOLE_PAGES);
      entry(undefined, pages);
      holePages -= pages;
    }
  };

  return {
    add(stretch) {
      const lengthBytes = 'bytes' in stretch ? stretch.bytes.length : stretch.lengthBytes;
      if (!Number.isSafeInteger(lengthBytes) || lengthBytes < PAGE_BYTES || lengthBytes % PAGE_BYTES !== 0) {
        throw new RangeError('a chunk or hole has whole pages of 4,096 bytes');
      }
      if (stretch.type === 'hole') {
        holePages += lengthBytes / PAGE_BYTES;
        return;
      }
      if (lengthBytes > MAX_CHUNK_BYTES) throw new RangeError('a chunk has at most 1,024 pages');
      flushHole();
      entry('digest' in stretch ? stretch.digest : fromHex(stretch.id), lengthBytes / PAGE_BYTES);
      contentPages += lengthBytes / PAGE_BYTES;
    },
    finish() {
      flushHole();
      return parseManifest(assemble(), hash, limits);
    },
  };

  function assemble(): Uint8Array {
    const entryCount = entries.length / MANIFEST_ENTRY_BYTES;
    const bytes = new Uint8Array(manifestBytes(entryCount));
    bytes.set(entries.bytes(), MANIFEST_HEADER_BYTES);
    const view = viewOf(bytes);
    const indexAt = MANIFEST_HEADER_BYTES + entries.length;
    for (const [i, start] of starts.entries()) {
      const from = MANIFEST_HEADER_BYTES + i * MANIFEST_PAGE_ENTRIES * MANIFEST_ENTRY_BYTES;
      const page = bytes.subarray(from, Math.min(indexAt, from + MANIFEST_PAGE_ENTRIES * MANIFEST_ENTRY_BYTES));
      const row = indexAt + i * MANIFEST_INDEX_ROW_BYTES;
      writeU64(view, row, start);
      bytes.set(hash.blake3(page), row + 8);
    }
    bytes.set(new TextEncoder().encode(MANIFEST_MAGIC));
    view.setUint32(HEADER.version, MANIFEST_VERSION, true);
    bytes[HEADER.digest] = 1;
    bytes[HEADER.format] = FORMATS.indexOf(facts.format);
    bytes[HEADER.layout] = LAYOUTS.indexOf(facts.layout);
    bytes[HEADER.architecture] = ARCHITECTURES.indexOf(facts.architecture);
    writeU64(view, HEADER.virtualBytes, virtualPages * PAGE_BYTES);
    writeU64(view, HEADER.contentBytes, contentPages * PAGE_BYTES);
    writeU64(view, HEADER.entries, entryCount);
    view.setUint32(HEADER.pageEntries, MANIFEST_PAGE_ENTRIES, true);
    view.setUint32(HEADER.pageBytes, PAGE_BYTES, true);
    bytes.set(hash.blake3(bytes.subarray(indexAt)), HEADER.indexRoot);
    bytes.set(facts.configDigest, HEADER.configDigest);
    return bytes;
  }
}

/** A manifest from stretches that are all at hand; see {@link createManifestBuilder}. */
export function encodeManifest(
  facts: ManifestFacts,
  stretches: Iterable<ManifestStretch>,
  hash: HashProvider,
): Uint8Array {
  const builder = createManifestBuilder(facts, hash);
  for (const stretch of stretches) builder.add(stretch);
  return builder.finish().bytes;
}
