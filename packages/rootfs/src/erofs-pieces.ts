import type { ImagePiece } from '@decant/cas';
import { KIB, MIB, PAGE_BYTES, roundUp } from '@decant/core';

import type { DataFile } from './data-files.ts';
import { FileCursor } from './file-bytes.ts';
import { planStorage } from './file-storage.ts';

const BUFFER_BYTES = MIB;
/** Shorter zero runs are copied like data. */
const LEAST_ZEROS = 64 * KIB;
/** The metadata zone is cut at multiples of this. */
const METADATA_PART_BYTES = 128 * KIB;

/**
 * The metadata zone, then the files' data with zeros between sections: the stored runs of their files, each filled up with zeros to
 * whole pages.
 */
export async function* writePieces(
  zone: Uint8Array,
  files: Iterable<DataFile>,
  { signal }: { readonly signal?: AbortSignal | undefined },
): AsyncGenerator<ImagePiece, void, undefined> {
  for (const [from, to] of metadataParts(zone.length)) {
    signal?.throwIfAborted();
    if (from > 0) yield { type: 'cut' };
    yield { type: 'data', bytes: zone.subarray(from, to) };
  }
  const buffer = new Uint8Array(BUFFER_BYTES);
  let used = 0;
  const flush = (): ImagePiece => {
    const bytes = buffer.subarray(0, used);
    used = 0;
    return { type: 'data', bytes };
  };
  let block = zone.length / PAGE_BYTES;
  for (const { file, firstBlock, cut, cutEveryPages = Infinity } of files) {
    signal?.throwIfAborted();
    if (firstBlock > block) {
      if (used > 0) yield flush();
      yield { type: 'zeros', lengthBytes: (firstBlock - block) * PAGE_BYTES };
    }
    const { pages, runs } = planStorage(file);
    block = firstBlock + pages;
    if (cut) {
      if (used > 0) yield flush();
      yield { type: 'cut' };
    }
    const cursor = new FileCursor(file);
    let untilCut = cutEveryPages * PAGE_BYTES;
    for (const { fileOffset, lengthBytes } of runs) {
      const end = fileOffset + lengthBytes;
      for (let at = fileOffset; at < end;) {
        if (untilCut === 0) {
          if (used > 0) yield flush();
          yield { type: 'cut' };
          untilCut = cutEveryPages * PAGE_BYTES;
        }
        const zeros = Math.min(cursor.zerosAt(at), end - at, untilCut);
        if (zeros >= LEAST_ZEROS) {
          if (used > 0) yield flush();
          yield { type: 'zeros', lengthBytes: zeros };
          at += zeros;
          untilCut -= zeros;
          continue;
        }
        const wanted = Math.min(end - at, untilCut, buffer.length - used, zeros === 0 ? cursor.dataAt(at) : zeros);
        cursor.read(buffer.subarray(used, used + wanted), at);
        used += wanted;
        at += wanted;
        untilCut -= wanted;
        if (used === buffer.length) {
          yield flush();
          signal?.throwIfAborted();
        }
      }
      const padding = roundUp(lengthBytes, PAGE_BYTES) - lengthBytes;
      untilCut -= padding;
      if (used + padding > buffer.length) yield flush();
      buffer.fill(0, used, used + padding);
      used += padding;
    }
  }
  if (used > 0) yield flush();
}

/**
 * The metadata zone is cut behind its first block, which has the superblock and changes with everything, and then at fixed
 * places: what an edit changes stays where it is, and what an insertion moves is all that follows anyway.
 */
function* metadataParts(lengthBytes: number): Generator<readonly [number, number]> {
  for (let from = 0; from < lengthBytes;) {
    const to = Math.min(lengthBytes, from === 0 ? PAGE_BYTES : roundUp(from + 1, METADATA_PART_BYTES));
    yield [from, to];
    from = to;
  }
}
