import type { ImagePiece } from '@decant/cas';
import { KIB, MIB, PAGE_BYTES, roundUp } from '@decant/core';

import type { PlacedFile } from './erofs-layout.ts';
import { FileCursor } from './file-bytes.ts';

export interface DataItem {
  readonly placed: PlacedFile;
  /** Whether a cut comes before it. */
  readonly cut: boolean;
}

const BUFFER_BYTES = MIB;
/** Shorter zero runs are copied like data. */
const LEAST_ZEROS = 64 * KIB;

/** The metadata zone, then the stored runs of the files, each filled up with zeros to whole pages. */
export async function* writePieces(
  zone: Uint8Array,
  items: readonly DataItem[],
  { signal }: { readonly signal?: AbortSignal | undefined },
): AsyncGenerator<ImagePiece, void, undefined> {
  for (let at = 0; at < zone.length; at += BUFFER_BYTES) {
    signal?.throwIfAborted();
    yield { type: 'data', bytes: zone.subarray(at, at + BUFFER_BYTES) };
  }
  const buffer = new Uint8Array(BUFFER_BYTES);
  let used = 0;
  const flush = (): ImagePiece => {
    const bytes = buffer.subarray(0, used);
    used = 0;
    return { type: 'data', bytes };
  };
  for (const { placed, cut } of items) {
    signal?.throwIfAborted();
    if (cut) {
      if (used > 0) yield flush();
      yield { type: 'cut' };
    }
    const cursor = new FileCursor(placed.inode.node);
    for (const { fileOffset, lengthBytes } of placed.storage.runs) {
      const end = fileOffset + lengthBytes;
      for (let at = fileOffset; at < end;) {
        const zeros = Math.min(cursor.zerosAt(at), end - at);
        if (zeros >= LEAST_ZEROS) {
          if (used > 0) yield flush();
          yield { type: 'zeros', lengthBytes: zeros };
          at += zeros;
          continue;
        }
        const wanted = Math.min(end - at, buffer.length - used, zeros === 0 ? cursor.dataAt(at) : zeros);
        cursor.read(buffer.subarray(used, used + wanted), at);
        used += wanted;
        at += wanted;
        if (used === buffer.length) {
          yield flush();
          signal?.throwIfAborted();
        }
      }
      const padding = roundUp(lengthBytes, PAGE_BYTES) - lengthBytes;
      if (used + padding > buffer.length) yield flush();
      buffer.fill(0, used, used + padding);
      used += padding;
    }
  }
  if (used > 0) yield flush();
}
