import { equalBytes, PAGE_BYTES, toHex, type ByteRange, type ChunkId, type ImageId } from '@decant/core';

import { firstNonZero, invalid, readU64, viewOf } from '../bytes/bytes-reader.ts';
import { MAX_HOLE_PAGES } from '../chunk/cut-rules.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import { imageId } from './image-id.ts';
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
  MAX_CHUNK_PAGES,
  type ManifestFacts,
  type ManifestLimits,
} from './manifest-layout.ts';

/** One stretch of an image: a chunk, or a hole when `id` is null. Page numbers count 4 KiB pages of the image. */
export interface ManifestEntry {
  readonly id: ChunkId | null;
  readonly firstPage: number;
  readonly pages: number;
}

/** The header and the index of a manifest: enough to fetch and verify any one of its pages. */
export interface ManifestHead extends ManifestFacts {
  readonly id: ImageId;
  /** Bytes of the image as a disk, a multiple of 4,096. */
  readonly virtualBytes: number;
  /** Bytes of the image that are not holes. */
  readonly contentBytes: number;
  readonly entryCount: number;
  /** Manifest pages of up to 1,024 entries. */
  readonly pageCount: number;
  /** Bytes of the whole manifest. */
  readonly manifestBytes: number;
  /** Where manifest page `index` lies in the manifest. */
  pageRange(index: number): ByteRange;
  /** First image page that manifest page `index` describes; for `pageCount`, the end of the image. */
  pageStart(index: number): number;
  /** The manifest page that describes an image page. */
  pageOf(imagePage: number): number;
  /** BLAKE3-256 of manifest page `index`. */
  pageDigest(index: number): Uint8Array;
}

type Header = ManifestFacts &
  Pick<ManifestHead, 'virtualBytes' | 'contentBytes' | 'entryCount' | 'pageCount' | 'manifestBytes'>;

/** Where the index lies; to fetch it after the 256 bytes of the header. @throws as {@link parseManifestHead}. */
export function manifestIndexRange(headerBytes: Uint8Array, limits: ManifestLimits = {}): ByteRange {
  const { entryCount, pageCount } = parseHeader(headerBytes, limits);
  return {
    offset: MANIFEST_HEADER_BYTES + entryCount * MANIFEST_ENTRY_BYTES,
    lengthBytes: pageCount * MANIFEST_INDEX_ROW_BYTES,
  };
}

/**
 * Reads and checks header and index. Whoever has them from an untrusted place compares `id` with the image asked for.
 * @throws CAS_MANIFEST_INVALID with the byte offset in the manifest.
 */
export function parseManifestHead(
  headerBytes: Uint8Array,
  indexBytes: Uint8Array,
  hash: HashProvider,
  limits: ManifestLimits = {},
): ManifestHead {
  const header = parseHeader(headerBytes, limits);
  const indexOffset = MANIFEST_HEADER_BYTES + header.entryCount * MANIFEST_ENTRY_BYTES;
  const { pageCount } = header;
  const index = indexBytes.slice();
  if (index.length !== pageCount * MANIFEST_INDEX_ROW_BYTES) {
    throw bad(indexOffset, `the index has ${index.length} bytes, not ${pageCount * MANIFEST_INDEX_ROW_BYTES}`);
  }
  if (!equalBytes(hash.blake3(index), headerBytes.subarray(HEADER.indexRoot, HEADER.indexRoot + 32))) {
    throw bad(HEADER.indexRoot, 'the index does not have the digest in the header');
  }
  const view = viewOf(index);
  const imagePages = header.virtualBytes / PAGE_BYTES;
  const starts = new Float64Array(pageCount + 1);
  starts[pageCount] = imagePages;
  for (let i = 0; i < pageCount; i++) {
    const at = i * MANIFEST_INDEX_ROW_BYTES;
    const start = readU64(view, at);
    const inOrder = i === 0 ? start === 0 : start !== undefined && start > starts[i - 1]! && start < imagePages;
    if (!inOrder) throw bad(indexOffset + at, 'the first pages in the index do not ascend from 0 inside the image');
    starts[i] = start!;
  }
  return {
    ...header,
    id: imageId(headerBytes, hash),
    pageRange(i) {
      requireIndex(i, pageCount);
      const first = i * MANIFEST_PAGE_ENTRIES;
      const count = Math.min(MANIFEST_PAGE_ENTRIES, header.entryCount - first);
      return {
        offset: MANIFEST_HEADER_BYTES + first * MANIFEST_ENTRY_BYTES,
        lengthBytes: count * MANIFEST_ENTRY_BYTES,
      };
    },
    pageStart(i) {
      requireIndex(i, pageCount + 1);
      return starts[i]!;
    },
    pageOf(imagePage) {
      requireIndex(imagePage, imagePages);
      return lastAtMost(starts, pageCount, imagePage);
    },
    pageDigest(i) {
      requireIndex(i, pageCount);
      return index.subarray(i * MANIFEST_INDEX_ROW_BYTES + 8, (i + 1) * MANIFEST_INDEX_ROW_BYTES);
    },
  };
}

/**
 * Checks one manifest page by its digest and its entries by the rules of the format, and returns them.
 * @throws CAS_MANIFEST_INVALID with the byte offset in the manifest.
 */
export function verifyManifestPage(
  head: ManifestHead,
  index: number,
  bytes: Uint8Array,
  hash: HashProvider,
): ManifestEntry[] {
  const { offset, lengthBytes } = head.pageRange(index);
  if (bytes.length !== lengthBytes) throw bad(offset, `page ${index} has ${bytes.length} bytes, not ${lengthBytes}`);
  if (!equalBytes(hash.blake3(bytes), head.pageDigest(index))) {
    throw bad(offset, `page ${index} does not have the digest in the index`);
  }
  const entries: ManifestEntry[] = [];
  const view = viewOf(bytes);
  let firstPage = head.pageStart(index);
  let before: ManifestEntry | undefined;
  for (let at = 0; at < bytes.length; at += MANIFEST_ENTRY_BYTES) {
    const { hole, pages } = checkEntry(view, bytes, at, offset);
    const id = hole ? null : (toHex(bytes.subarray(at, at + 32)) as ChunkId);
    if (hole && before?.id === null && before.pages !== MAX_HOLE_PAGES) throw adjoining(offset + at);
    before = { id, firstPage, pages };
    entries.push(before);
    firstPage += pages;
  }
  checkPageEnd(head, index, firstPage);
  return entries;
}

export function adjoining(offset: number): Error {
  return bad(offset, 'a hole follows a hole that is not full');
}

/** The entries of a manifest page must reach to where the next one begins. */
export function checkPageEnd(head: ManifestHead, index: number, endPage: number): void {
  if (endPage === head.pageStart(index + 1)) return;
  const { offset } = head.pageRange(index);
  throw bad(offset, `page ${index} ends at image page ${endPage}, not at ${head.pageStart(index + 1)}`);
}

/** Checks one entry alone; `at` is its place in `bytes`, `base` the manifest offset of `bytes`. */
export function checkEntry(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  base: number,
): { readonly hole: boolean; readonly pages: number } {
  const pages = view.getUint32(at + 32, true);
  const flags = view.getUint32(at + 36, true);
  if (flags > HOLE_FLAG) throw bad(base + at + 36, 'an entry has unknown flags');
  const hole = flags === HOLE_FLAG;
  const most = hole ? MAX_HOLE_PAGES : MAX_CHUNK_PAGES;
  if (pages < 1 || pages > most) throw bad(base + at + 32, `an entry has ${pages} pages, not 1 to ${most}`);
  const idByte = firstNonZero(bytes, at, at + 32);
  if (hole && idByte !== undefined) throw bad(base + idByte, 'a hole has a chunk id');
  if (!hole && idByte === undefined) throw bad(base + at, 'a chunk has no id');
  return { hole, pages };
}

/** Index of the last of the first `count` ascending values that is at most `value`. */
export function lastAtMost(values: Float64Array, count: number, value: number): number {
  let low = 0;
  let high = count - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (values[middle]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

export function requireIndex(index: number, count: number): void {
  if (!Number.isInteger(index) || index < 0 || index >= count) throw new RangeError(`no ${index} among ${count}`);
}

function parseHeader(bytes: Uint8Array, limits: ManifestLimits): Header {
  if (bytes.length !== MANIFEST_HEADER_BYTES) {
    throw bad(0, `the header has ${bytes.length} bytes, not ${MANIFEST_HEADER_BYTES}`);
  }
  const view = viewOf(bytes);
  for (let i = 0; i < 8; i++) {
    if (bytes[i] !== MANIFEST_MAGIC.charCodeAt(i)) throw bad(i, 'it does not begin with DCNTMFT1');
  }
  const u32 = (at: number, expected: number, what: string) => {
    const value = view.getUint32(at, true);
    if (value !== expected) throw bad(at, `${what} is ${value}, not ${expected}`);
  };
  u32(HEADER.version, MANIFEST_VERSION, 'the version');
  u32(HEADER.flags, 0, 'the flags field');
  if (bytes[HEADER.digest] !== 1) throw bad(HEADER.digest, 'the digest is not BLAKE3');
  const format = FORMATS[bytes[HEADER.format]!];
  if (format === undefined) throw bad(HEADER.format, 'the format is unknown');
  const layout = LAYOUTS[bytes[HEADER.layout]!];
  if (layout === undefined) throw bad(HEADER.layout, 'the layout is unknown');
  const architecture = ARCHITECTURES[bytes[HEADER.architecture]!];
  if (architecture === undefined) throw bad(HEADER.architecture, 'the architecture is unknown');
  u32(HEADER.reserved, 0, 'a reserved field');
  u32(HEADER.pageEntries, MANIFEST_PAGE_ENTRIES, 'the number of entries per page');
  u32(HEADER.pageBytes, PAGE_BYTES, 'the page size');
  const stray = firstNonZero(bytes, HEADER.zeros, MANIFEST_HEADER_BYTES);
  if (stray !== undefined) throw bad(stray, 'a reserved byte is not zero');

  const maxVirtualBytes = limits.maxVirtualBytes ?? DEFAULT_MANIFEST_LIMITS.maxVirtualBytes;
  const virtualBytes = readU64(view, HEADER.virtualBytes);
  if (virtualBytes === undefined || virtualBytes > maxVirtualBytes) {
    throw bad(HEADER.virtualBytes, `the image is larger than ${maxVirtualBytes} bytes`);
  }
  if (virtualBytes % PAGE_BYTES !== 0) throw bad(HEADER.virtualBytes, 'the image does not end on a page boundary');
  const contentBytes = readU64(view, HEADER.contentBytes);
  if (contentBytes === undefined || contentBytes > virtualBytes || contentBytes % PAGE_BYTES !== 0) {
    throw bad(HEADER.contentBytes, 'the content size is not possible');
  }
  const maxBytes = limits.maxBytes ?? DEFAULT_MANIFEST_LIMITS.maxBytes;
  const entryCount = readU64(view, HEADER.entries);
  if (entryCount === undefined || entryCount > virtualBytes / PAGE_BYTES || manifestBytes(entryCount) > maxBytes) {
    throw bad(HEADER.entries, 'there are more entries than the image or the limits allow');
  }
  if ((entryCount === 0) !== (virtualBytes === 0)) throw bad(HEADER.entries, 'only an empty image has no entries');
  return {
    format,
    layout,
    architecture,
    configDigest: bytes.slice(HEADER.configDigest, HEADER.configDigest + 32),
    virtualBytes,
    contentBytes,
    entryCount,
    pageCount: Math.ceil(entryCount / MANIFEST_PAGE_ENTRIES),
    manifestBytes: manifestBytes(entryCount),
  };
}

function bad(offset: number, problem: string): Error {
  return invalid('CAS_MANIFEST_INVALID', 'manifest', offset, problem);
}
