import type { ByteCursor } from './byte-cursor.ts';
import type { ByteString, SparseRun } from './tar-entry.ts';
import { tarError, tarLimitError } from './tar-errors.ts';
import { BLOCK_BYTES, parseGnuSparse, parseGnuSparseBlock } from './tar-header.ts';

export interface SparseFile {
  readonly realSize: number;
  readonly runs: readonly SparseRun[];
}

/** Reads the map of an old GNU sparse file: part of its header, and blocks that follow the header. */
export async function readGnuSparse(
  cursor: ByteCursor,
  header: Uint8Array,
  headerOffset: number,
  name: ByteString,
  limit: number,
): Promise<{ runs: number[]; realSize: number }> {
  const first = parseGnuSparse(header, headerOffset, name);
  const runs = first.runs;
  for (let more = first.more; more;) {
    const offset = cursor.offset;
    const block = await cursor.take(BLOCK_BYTES);
    if (block.length < BLOCK_BYTES) throw tarError('the archive ends inside a sparse map', offset, name);
    const next = parseGnuSparseBlock(block, offset, name);
    if (next.more && next.runs.length === 0) throw tarError('a block of sparse runs is empty', offset, name);
    for (const value of next.runs) runs.push(value);
    if (runs.length / 2 > limit) throw tarLimitError('too many sparse runs', offset, sparseRuns(limit), name);
    more = next.more;
  }
  return { runs, realSize: first.realSize };
}

/**
 * Reads the map of a PAX sparse file 1.0, which lies before the data: the number of runs, then offset and
 * length of each, one decimal number per line, padded to whole blocks.
 */
export async function readPaxSparseMap(
  cursor: ByteCursor,
  storedBytes: number,
  name: ByteString,
  limit: number,
): Promise<{ runs: number[]; mapBytes: number }> {
  const start = cursor.offset;
  const runs: number[] = [];
  let expected: number | undefined;
  let line = '';
  let mapBytes = 0;
  while (expected === undefined || runs.length < 2 * expected) {
    const offset = cursor.offset;
    if (mapBytes + BLOCK_BYTES > storedBytes) throw tarError('a sparse map is longer than its file', offset, name);
    const block = await cursor.take(BLOCK_BYTES);
    if (block.length < BLOCK_BYTES) throw tarError('the archive ends inside a sparse map', offset, name);
    mapBytes += BLOCK_BYTES;
    for (const byte of block) {
      if (expected !== undefined && runs.length === 2 * expected) break;
      if (byte !== 0x0a) {
        line += String.fromCharCode(byte);
        if (line.length > 16) throw tarError('a sparse map has a line that is no number', offset, name);
        continue;
      }
      const value = /^[0-9]{1,16}$/.test(line) ? Number(line) : Number.NaN;
      if (!Number.isSafeInteger(value)) throw tarError('a sparse map has a line that is no number', offset, name);
      line = '';
      if (expected !== undefined) {
        runs.push(value);
        continue;
      }
      if (value > limit) throw tarLimitError(`${value} sparse runs`, start, sparseRuns(limit), name);
      expected = value;
    }
  }
  return { runs, mapBytes };
}

/** Checks that runs ascend without overlap inside the file and are together exactly the bytes that are stored. */
export function checkSparse(
  pairs: readonly number[],
  realSize: number,
  storedBytes: number,
  offset: number,
  name: ByteString,
  limit: number,
): SparseFile {
  if (pairs.length / 2 > limit) throw tarLimitError(`${pairs.length / 2} sparse runs`, offset, sparseRuns(limit), name);
  const runs: SparseRun[] = [];
  let end = 0;
  let total = 0;
  for (let i = 0; i < pairs.length; i += 2) {
    const fileOffset = pairs[i]!;
    const lengthBytes = pairs[i + 1]!;
    if (fileOffset < end || fileOffset + lengthBytes > realSize) {
      throw tarError('sparse runs overlap, do not ascend or lie outside their file', offset, name);
    }
    end = fileOffset + lengthBytes;
    total += lengthBytes;
    if (lengthBytes > 0) runs.push({ fileOffset, lengthBytes });
  }
  if (total !== storedBytes) {
    throw tarError(`sparse runs have ${total} bytes and the archive stores ${storedBytes}`, offset, name);
  }
  return { realSize, runs };
}

function sparseRuns(value: number) {
  return { name: 'sparseRuns', value } as const;
}
