import type { Manifest } from '@decant/cas';
import { MIB, PAGE_BYTES, type ChunkId } from '@decant/core';
import type { ErofsImage, ImageFile } from '@decant/rootfs';

/** An image that is compared: its tree, and which chunk every page of it lies in. */
export interface ComparedImage {
  readonly erofs: ErofsImage;
  readonly manifest: Manifest;
}

/** A stretch of a file that lies in one chunk, or in none. */
interface Span {
  /** In the file. */
  readonly start: number;
  readonly end: number;
  readonly id: ChunkId | null;
  /** Of the first byte, from the chunk's start. */
  readonly within: number;
}

const READ_BYTES = MIB;

/**
 * Whether two files of equal size hold the same bytes. What both have in the same place of the same chunk, or both as
 * a hole, is equal without being read; the rest is read from both.
 */
export async function sameContent(
  before: ComparedImage,
  old: ImageFile,
  after: ComparedImage,
  fresh: ImageFile,
  { signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<boolean> {
  const sameBytes = async (start: number, end: number): Promise<boolean> => {
    for (let at = start; at < end; at += READ_BYTES) {
      const lengthBytes = Math.min(READ_BYTES, end - at);
      const [one, other] = await Promise.all([
        before.erofs.readFile(old, at, lengthBytes, { signal }),
        after.erofs.readFile(fresh, at, lengthBytes, { signal }),
      ]);
      if (Buffer.compare(one, other) !== 0) return false;
    }
    return true;
  };
  const spans = spansOf(before.manifest, old);
  const others = spansOf(after.manifest, fresh);
  let span = spans.next().value;
  let other = others.next().value;
  /** A stretch that has to be read, begun and not yet at its end. */
  let unread: { readonly start: number; readonly end: number } | undefined;
  while (span !== undefined && other !== undefined) {
    const start = Math.max(span.start, other.start);
    const end = Math.min(span.end, other.end);
    const sameOffset = span.within - span.start === other.within - other.start;
    const known = span.id === other.id && (span.id === null || sameOffset);
    if (!known) unread = { start: unread?.start ?? start, end };
    if (unread !== undefined && (known || end - unread.start >= READ_BYTES)) {
      if (!(await sameBytes(unread.start, unread.end))) return false;
      unread = undefined;
    }
    if (span.end === end) span = spans.next().value;
    if (other.end === end) other = others.next().value;
  }
  return unread === undefined || sameBytes(unread.start, unread.end);
}

/** The whole file from its first byte to its last. */
function* spansOf(manifest: Manifest, file: ImageFile): Generator<Span, undefined, undefined> {
  let at = 0;
  for (const { fileOffset, lengthBytes, imageOffset } of file.ranges) {
    if (fileOffset > at) yield { start: at, end: fileOffset, id: null, within: 0 };
    at = fileOffset;
    for (let i = manifest.find(Math.floor(imageOffset / PAGE_BYTES)); at < fileOffset + lengthBytes; i++) {
      const { id, firstPage, pages } = manifest.entry(i);
      const chunkStart = firstPage * PAGE_BYTES;
      const imageAt = imageOffset + (at - fileOffset);
      const end = Math.min(fileOffset + lengthBytes, at + chunkStart + pages * PAGE_BYTES - imageAt);
      yield { start: at, end, id, within: imageAt - chunkStart };
      at = end;
    }
  }
  if (at < file.sizeBytes) yield { start: at, end: file.sizeBytes, id: null, within: 0 };
  return undefined;
}
