import { equalBytes, type ChunkFrame } from '@decant/core';

import { firstNonZero, readU64, viewOf } from '../bytes/bytes-reader.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import { requireIndex } from '../manifest/manifest-head.ts';
import {
  badPack,
  ENCODINGS,
  frameProblem,
  MAX_PACK_BYTES,
  MAX_PACK_CHUNKS,
  PACK_FOOTER_BYTES,
  PACK_HEAD_BYTES,
  PACK_MAGIC,
  PACK_ROW_BYTES,
  PACK_VERSION,
  readRow,
  type PackRow,
} from './pack-layout.ts';
import type { RandomAccess } from '../image/random-access.ts';

/** What a pack holds, in the order of its offsets. It keeps 56 bytes a chunk. */
export interface PackTable {
  readonly count: number;
  /** Bytes of the whole pack. */
  readonly sizeBytes: number;
  /** The rows as they are stored, 56 bytes each; not to be written to. */
  readonly bytes: Uint8Array;
  /** @throws RangeError when there is no such row. */
  row(index: number): PackRow;
  rows(): Generator<PackRow, void, undefined>;
}

/** A table over checked rows. */
export function packTable(table: Uint8Array, sizeBytes: number): PackTable {
  const count = table.length / PACK_ROW_BYTES;
  return {
    count,
    sizeBytes,
    bytes: table,
    row(index) {
      requireIndex(index, count);
      return readRow(table, index * PACK_ROW_BYTES);
    },
    *rows() {
      for (let i = 0; i < count; i++) yield readRow(table, i * PACK_ROW_BYTES);
    },
  };
}

/**
 * Reads and checks head, footer and table: every rule of the format except the digests of the chunks themselves.
 * @throws CAS_PACK_INVALID with the byte offset.
 */
export async function readPackTable(
  source: RandomAccess,
  options: { readonly hash: HashProvider; readonly signal?: AbortSignal | undefined },
): Promise<PackTable> {
  const { hash, signal } = options;
  const { sizeBytes } = source;
  const smallest = PACK_HEAD_BYTES + PACK_ROW_BYTES + PACK_FOOTER_BYTES;
  if (sizeBytes < smallest) throw badPack(sizeBytes, `it has only ${sizeBytes} bytes`);
  if (sizeBytes > MAX_PACK_BYTES) throw badPack(MAX_PACK_BYTES, `it has ${sizeBytes} bytes; 64 MiB are allowed`);
  checkHead(await source.read(0, PACK_HEAD_BYTES, { signal }));

  const footerAt = sizeBytes - PACK_FOOTER_BYTES;
  const footer = await source.read(footerAt, PACK_FOOTER_BYTES, { signal });
  const view = viewOf(footer);
  const tableAt = readU64(view, 0);
  const count = view.getUint32(8, true);
  const version = view.getUint32(12, true);
  if (version !== PACK_VERSION) throw badPack(footerAt + 12, `the version is ${version}, not ${PACK_VERSION}`);
  if (count < 1 || count > MAX_PACK_CHUNKS) throw badPack(footerAt + 8, `it has ${count} chunks, not 1 to 65,536`);
  if (tableAt === undefined || tableAt < PACK_HEAD_BYTES || tableAt + count * PACK_ROW_BYTES !== footerAt) {
    throw badPack(footerAt, 'the table does not reach from its offset to the footer');
  }
  const table = await source.read(tableAt, count * PACK_ROW_BYTES, { signal });
  if (!equalBytes(hash.blake3(table), footer.subarray(16))) {
    throw badPack(footerAt + 16, 'the table does not have the digest in the footer');
  }
  checkRows(table, tableAt);
  return packTable(table, sizeBytes);
}

/** One chunk of a pack as it is stored, not yet verified. */
export async function packFrame(
  source: RandomAccess,
  row: PackRow,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<ChunkFrame> {
  const stored = await source.read(row.offset, row.storedBytes, { signal: options.signal });
  return { id: row.id, encoding: row.encoding, plainBytes: row.plainBytes, stored };
}

function checkHead(head: Uint8Array): void {
  for (let i = 0; i < 8; i++) {
    if (head[i] !== PACK_MAGIC.charCodeAt(i)) throw badPack(i, 'it does not begin with DCNTPCK1');
  }
  const view = viewOf(head);
  const flags = view.getUint32(8, true);
  if (flags === 1) throw badPack(8, 'it is encrypted, which this version cannot read');
  if (flags !== 0) throw badPack(8, 'it has unknown flags');
  const stray = firstNonZero(head, 12, PACK_HEAD_BYTES);
  if (stray !== undefined) throw badPack(stray, 'a byte that must be zero in a plain pack is not');
}

function checkRows(table: Uint8Array, tableAt: number): void {
  const view = viewOf(table);
  let end = PACK_HEAD_BYTES;
  for (let at = 0; at < table.length; at += PACK_ROW_BYTES) {
    const offset = readU64(view, at + 32);
    if (offset !== end) throw badPack(tableAt + at + 32, `a chunk begins at ${offset}, not at ${end}`);
    const encoding = ENCODINGS[table[at + 48]!];
    if (encoding === undefined) throw badPack(tableAt + at + 48, 'the encoding is unknown');
    const stray = firstNonZero(table, at + 49, at + PACK_ROW_BYTES);
    if (stray !== undefined) throw badPack(tableAt + stray, 'a reserved byte is not zero');
    const storedBytes = view.getUint32(at + 40, true);
    const problem = frameProblem(storedBytes, view.getUint32(at + 44, true), encoding);
    if (problem !== undefined) throw badPack(tableAt + at + 40, problem);
    end += storedBytes;
    if (end > tableAt) throw badPack(tableAt + at + 40, 'a chunk reaches into the table');
  }
  if (end !== tableAt) throw badPack(end, `the chunks end at ${end}, the table begins at ${tableAt}`);
}
