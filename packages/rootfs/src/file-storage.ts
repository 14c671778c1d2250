import { PAGE_BYTES, roundUp } from '@decant/core';

import type { FileContent } from './tree.ts';

/** A run of a file as the image stores it: whole pages, except that the last one may end with the file. */
export interface StoredRun {
  readonly fileOffset: number;
  readonly lengthBytes: number;
}

/** How one regular file lies in the image: its runs back to back, each beginning on a page. */
export interface FileStorage {
  /** Undefined for a file without holes. Otherwise log2 of the pages per chunk. */
  readonly chunkPageBits: number | undefined;
  readonly runs: readonly StoredRun[];
  readonly pages: number;
}

/** Most chunk map entries of one file with holes: 64 KiB of metadata. */
const MOST_CHUNKS = 16_384;

/**
 * A file whose every page has data is stored in one run. A file with holes is stored by chunks of the smallest
 * power of two pages that needs no more than 16,384 of them; a chunk that no data touches is not stored.
 */
export function planStorage(file: FileContent): FileStorage {
  const { sizeBytes } = file;
  const pages = Math.ceil(sizeBytes / PAGE_BYTES);
  if (pages === 0) return { chunkPageBits: undefined, runs: [], pages: 0 };
  if (coveredRuns(file, PAGE_BYTES).reduce((sum, run) => sum + run.lengthBytes, 0) === sizeBytes) {
    return { chunkPageBits: undefined, runs: [{ fileOffset: 0, lengthBytes: sizeBytes }], pages };
  }
  let bits = 0;
  while (Math.ceil(pages / 2 ** bits) > MOST_CHUNKS) bits++;
  const runs = coveredRuns(file, PAGE_BYTES * 2 ** bits);
  return { chunkPageBits: bits, runs, pages: runs.reduce((sum, run) => sum + pagesOf(run), 0) };
}

export function pagesOf(run: StoredRun): number {
  return Math.ceil(run.lengthBytes / PAGE_BYTES);
}

/** The runs of whole units, the last cut to the file's size, that hold at least one byte of an extent. */
function coveredRuns(file: FileContent, unitBytes: number): StoredRun[] {
  const runs: { fileOffset: number; lengthBytes: number }[] = [];
  for (const extent of file.extents) {
    const start = extent.fileOffset - (extent.fileOffset % unitBytes);
    const end = Math.min(roundUp(extent.fileOffset + extent.lengthBytes, unitBytes), file.sizeBytes);
    const last = runs.at(-1);
    const lastEnd = last === undefined ? -1 : last.fileOffset + last.lengthBytes;
    if (last !== undefined && start <= lastEnd) last.lengthBytes = Math.max(lastEnd, end) - last.fileOffset;
    else runs.push({ fileOffset: start, lengthBytes: end - start });
  }
  return runs;
}
