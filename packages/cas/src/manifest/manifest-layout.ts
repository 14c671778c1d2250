import { PAGE_BYTES } from '@decant/core';

/*
 * Manifest, version 1. All integers little-endian.
 *
 *     header  256 bytes
 *     pages   entries × 40 bytes, in pages of 1,024 entries, the last one short
 *     index   ceil(entries / 1,024) × 40 bytes; nothing follows
 *
 *     header:   0  magic "DCNTMFT1"
 *               8  u32 version = 1
 *              12  u32 flags = 0
 *              16  u8 digest (1 blake3)
 *              17  u8 format (1 erofs, 2 ext4, 3 raw)
 *              18  u8 layout (1 hinted, 2 foreign)
 *              19  u8 architecture (0 none, 1 amd64, 2 arm64)
 *              20  u32 0
 *              24  u64 virtual size, a multiple of 4,096
 *              32  u64 content size: bytes of chunks
 *              40  u64 entries
 *              48  u32 entries per page = 1,024
 *              52  u32 page size = 4,096
 *              56  32 bytes index root: BLAKE3-256 of the index
 *              88  32 bytes configuration digest
 *             120  zeros to 256
 *     entry:    0  32 bytes chunk id; zeros for a hole
 *              32  u32 pages (chunk 1 to 1,024; hole 1 to 2^26)
 *              36  u32 flags (bit 0: hole)
 *     index:    0  u64 number of the first 4 KiB page of the manifest page's first entry
 *               8  32 bytes BLAKE3-256 of the manifest page
 */
export const MANIFEST_MAGIC = 'DCNTMFT1';
export const MANIFEST_VERSION = 1;
export const MANIFEST_HEADER_BYTES = 256;
export const MANIFEST_ENTRY_BYTES = 40;
export const MANIFEST_INDEX_ROW_BYTES = 40;
export const MANIFEST_PAGE_ENTRIES = 1024;
/** Most pages of one chunk (4 MiB); the rules in use stop at 256. */
export const MAX_CHUNK_PAGES = 1024;
export const MAX_CHUNK_BYTES = MAX_CHUNK_PAGES * PAGE_BYTES;
export const HOLE_FLAG = 1;

export const HEADER = {
  version: 8,
  flags: 12,
  digest: 16,
  format: 17,
  layout: 18,
  architecture: 19,
  reserved: 20,
  virtualBytes: 24,
  contentBytes: 32,
  entries: 40,
  pageEntries: 48,
  pageBytes: 52,
  indexRoot: 56,
  configDigest: 88,
  zeros: 120,
} as const;

export const FORMATS = [undefined, 'erofs', 'ext4', 'raw'] as const;
export const LAYOUTS = [undefined, 'hinted', 'foreign'] as const;
export const ARCHITECTURES = [null, 'amd64', 'arm64'] as const;

/** What a manifest says about an image besides its chunks. */
export interface ManifestFacts {
  readonly format: 'erofs' | 'ext4' | 'raw';
  readonly layout: 'hinted' | 'foreign';
  readonly architecture: 'amd64' | 'arm64' | null;
  /** 32 bytes; see `configDigest`. */
  readonly configDigest: Uint8Array;
}

/** Bounds a reader puts on a manifest before it allocates anything. */
export interface ManifestLimits {
  /** Most bytes of the whole manifest; default 64 MiB, about 1.6 million entries. */
  readonly maxBytes?: number | undefined;
  /** Most bytes of the image as a disk; default 16 TiB. */
  readonly maxVirtualBytes?: number | undefined;
}

export const DEFAULT_MANIFEST_LIMITS = { maxBytes: 64 * 2 ** 20, maxVirtualBytes: 16 * 2 ** 40 } as const;

/** Bytes of a manifest with so many entries. */
export function manifestBytes(entries: number): number {
  const pages = Math.ceil(entries / MANIFEST_PAGE_ENTRIES);
  return MANIFEST_HEADER_BYTES + entries * MANIFEST_ENTRY_BYTES + pages * MANIFEST_INDEX_ROW_BYTES;
}
