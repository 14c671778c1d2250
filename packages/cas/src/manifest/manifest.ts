import { equalBytes, PAGE_BYTES, toHex, type ChunkId } from '@decant/core';

import { invalid, viewOf } from '../bytes/bytes-reader.ts';
import { MAX_HOLE_PAGES } from '../chunk/cut-rules.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import { IdTable } from '../bytes/id-table.ts';
import {
  adjoining,
  checkEntry,
  checkPageEnd,
  lastAtMost,
  parseManifestHead,
  requireIndex,
  type ManifestEntry,
  type ManifestHead,
} from './manifest-head.ts';
import {
  DEFAULT_MANIFEST_LIMITS,
  HOLE_FLAG,
  MANIFEST_ENTRY_BYTES,
  MANIFEST_HEADER_BYTES,
  MANIFEST_PAGE_ENTRIES,
  type ManifestLimits,
} from './manifest-layout.ts';

/** A chunk of an image, and the first entry that has it. */
export interface ManifestChunk {
  readonly id: ChunkId;
  readonly plainBytes: number;
  readonly entry: number;
}

/** A whole, checked manifest. It keeps the bytes and about 20 bytes more for every entry. */
export interface Manifest extends ManifestHead {
  /** The manifest as it is stored; not to be written to. */
  readonly bytes: Uint8Array;
  /** Different chunks, and their plain bytes together. */
  readonly chunkCount: number;
  readonly chunkBytes: number;
  /** @throws RangeError when there is no such entry. */
  entry(index: number): ManifestEntry;
  /** Index of the entry that holds a 4 KiB page of the image. @throws RangeError for a page that is not inside. */
  find(imagePage: number): number;
  /** Index of the first entry with this chunk, or undefined. */
  indexOf(id: ChunkId): number | undefined;
  /** Every chunk once, in image order of its first use. */
  chunks(): Generator<ManifestChunk, void, undefined>;
  /** Ids of {@link Manifest.chunks}. */
  chunkIds(): Generator<ChunkId, void, undefined>;
}

/**
 * Reads and checks a whole manifest; keeps `bytes`, which must not change afterwards. Whoever has them from an
 * untrusted place compares `id` with the image asked for.
 * @throws CAS_MANIFEST_INVALID with the byte offset.
 */
export function parseManifest(bytes: Uint8Array, hash: HashProvider, limits: ManifestLimits = {}): Manifest {
  const maxBytes = limits.maxBytes ?? DEFAULT_MANIFEST_LIMITS.maxBytes;
  if (bytes.length > maxBytes) throw bad(maxBytes, `it has ${bytes.length} bytes; ${maxBytes} are allowed`);
  if (bytes.length < MANIFEST_HEADER_BYTES) throw bad(bytes.length, 'it ends inside the header');
  const headerBytes = bytes.subarray(0, MANIFEST_HEADER_BYTES);
  const entriesEnd = indexOffset(bytes);
  const head = parseManifestHead(headerBytes, bytes.subarray(Math.min(entriesEnd, bytes.length)), hash, limits);
  const firstPages = new Float64Array(head.entryCount);
  const ids = new IdTable(bytes, MANIFEST_HEADER_BYTES, MANIFEST_ENTRY_BYTES, head.entryCount);
  const view = viewOf(bytes);

  let page = 0;
  let contentPages = 0;
  let chunkPages = 0;
  let shortHoleBefore = false;
  for (let i = 0; i < head.entryCount; i++) {
    const at = MANIFEST_HEADER_BYTES + i * MANIFEST_ENTRY_BYTES;
    if (i % MANIFEST_PAGE_ENTRIES === 0) checkPage(head, i / MANIFEST_PAGE_ENTRIES, bytes, page, hash);
    const { hole, pages } = checkEntry(view, bytes, at, 0);
    if (hole && shortHoleBefore) throw adjoining(at);
    shortHoleBefore = hole && pages !== MAX_HOLE_PAGES;
    firstPages[i] = page;
    page += pages;
    if (hole) continue;
    contentPages += pages;
    const first = ids.add(i);
    if (first === i) {
      chunkPages += pages;
    } else if (view.getUint32(MANIFEST_HEADER_BYTES + first * MANIFEST_ENTRY_BYTES + 32, true) !== pages) {
      throw bad(at + 32, 'one chunk has two lengths');
    }
  }
  if (head.pageCount > 0) checkPageEnd(head, head.pageCount - 1, page);
  if (contentPages * PAGE_BYTES !== head.contentBytes) {
    throw bad(32, `the content size is ${head.contentBytes}, but the chunks have ${contentPages * PAGE_BYTES} bytes`);
  }

  const entryAt = (i: number) => MANIFEST_HEADER_BYTES + i * MANIFEST_ENTRY_BYTES;
  const isHole = (i: number) => view.getUint32(entryAt(i) + 36, true) === HOLE_FLAG;
  const pagesOf = (i: number) => view.getUint32(entryAt(i) + 32, true);
  const idOf = (i: number) => toHex(bytes.subarray(entryAt(i), entryAt(i) + 32)) as ChunkId;
  function* chunks(): Generator<ManifestChunk, void, undefined> {
    for (let i = 0; i < head.entryCount; i++) {
      if (!isHole(i) && ids.isFirst(i)) yield { id: idOf(i), plainBytes: pagesOf(i) * PAGE_BYTES, entry: i };
    }
  }
  return {
    ...head,
    bytes,
    chunkCount: ids.size,
    chunkBytes: chunkPages * PAGE_BYTES,
    entry(i) {
      requireIndex(i, head.entryCount);
      return { id: isHole(i) ? null : idOf(i), firstPage: firstPages[i]!, pages: pagesOf(i) };
    },
    find(imagePage) {
      requireIndex(imagePage, head.virtualBytes / PAGE_BYTES);
      return lastAtMost(firstPages, head.entryCount, imagePage);
    },
    indexOf: (id) => ids.find(id),
    chunks,
    *chunkIds() {
      for (const { id } of chunks()) yield id;
    },
  };
}

/** Where the header says that the index begins; the header itself is checked later. */
function indexOffset(bytes: Uint8Array): number {
  const entries = viewOf(bytes).getBigUint64(40, true);
  const most = BigInt(Math.floor(bytes.length / MANIFEST_ENTRY_BYTES));
  return MANIFEST_HEADER_BYTES + Number(entries < most ? entries : most) * MANIFEST_ENTRY_BYTES;
}

function checkPage(head: ManifestHead, index: number, bytes: Uint8Array, startPage: number, hash: HashProvider): void {
  if (index > 0) checkPageEnd(head, index - 1, startPage);
  const { offset, lengthBytes } = head.pageRange(index);
  if (!equalBytes(hash.blake3(bytes.subarray(offset, offset + lengthBytes)), head.pageDigest(index))) {
    throw bad(offset, `page ${index} does not have the digest in the index`);
  }
}

function bad(offset: number, problem: string): Error {
  return invalid('CAS_MANIFEST_INVALID', 'manifest', offset, problem);
}
