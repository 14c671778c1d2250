import { MIB, PAGE_BYTES, toHex, type ChunkEncoding, type ChunkId } from '@decant/core';

import { invalid, readU64, viewOf, writeU64 } from '../bytes/bytes-reader.ts';
import { MAX_CHUNK_BYTES } from '../manifest/manifest-layout.ts';

/*
 * Pack, version 1. All integers little-endian; offsets count from the start of the pack.
 *
 *     head     0  magic "DCNTPCK1"
 *              8  u32 flags (bit 0: encrypted)
 *             12  u32 0
 *             16  32 bytes pack nonce, or zeros
 *     frames  from 48, back to back: the stored bytes of one chunk each
 *     table   56 bytes per chunk:
 *              0  32 bytes chunk id
 *             32  u64 offset
 *             40  u32 stored length
 *             44  u32 plain length
 *             48  u8 encoding (0 raw, 1 zstd)
 *             49  7 zeros
 *     footer   0  u64 table offset
 *              8  u32 chunks
 *             12  u32 version = 1
 *             16  32 bytes BLAKE3-256 of the table
 */
export const PACK_MAGIC = 'DCNTPCK1';
export const PACK_VERSION = 1;
export const PACK_HEAD_BYTES = 48;
export const PACK_ROW_BYTES = 56;
export const PACK_FOOTER_BYTES = 48;
/** Most bytes of a pack with head, table and footer. */
export const MAX_PACK_BYTES = 64 * MIB;
export const MAX_PACK_CHUNKS = 65_536;
export const ENCODINGS: readonly ChunkEncoding[] = ['raw', 'zstd'];

/** Where one chunk lies in a pack. Offset in bytes from the start of the pack. */
export interface PackRow {
  readonly id: ChunkId;
  readonly offset: number;
  readonly storedBytes: number;
  readonly plainBytes: number;
  readonly encoding: ChunkEncoding;
}

/** What a chunk may look like as stored; undefined when it is in order. Shared with the locator. */
export function frameProblem(storedBytes: number, plainBytes: number, encoding: ChunkEncoding): string | undefined {
  if (plainBytes < PAGE_BYTES || plainBytes > MAX_CHUNK_BYTES || plainBytes % PAGE_BYTES !== 0) {
    return `a chunk has ${plainBytes} plain bytes, not 1 to 1,024 pages`;
  }
  if (encoding === 'raw' ? storedBytes !== plainBytes : storedBytes < 1 || storedBytes >= plainBytes) {
    return `a ${encoding} chunk of ${plainBytes} bytes is stored in ${storedBytes}`;
  }
  return undefined;
}

export function writeRow(target: Uint8Array, id: Uint8Array, row: Omit<PackRow, 'id'>): void {
  const view = viewOf(target);
  target.set(id);
  writeU64(view, 32, row.offset);
  view.setUint32(40, row.storedBytes, true);
  view.setUint32(44, row.plainBytes, true);
  target[48] = ENCODINGS.indexOf(row.encoding);
}

/** The row at `at`, of a table that has been checked. */
export function readRow(table: Uint8Array, at: number): PackRow {
  const view = viewOf(table);
  return {
    id: toHex(table.subarray(at, at + 32)) as ChunkId,
    offset: readU64(view, at + 32) ?? 0,
    storedBytes: view.getUint32(at + 40, true),
    plainBytes: view.getUint32(at + 44, true),
    encoding: ENCODINGS[table[at + 48]!]!,
  };
}

export function badPack(offset: number, problem: string): Error {
  return invalid('CAS_PACK_INVALID', 'pack', offset, problem);
}
