import {
  DecantError,
  KIB,
  MIB,
  type CallOptions,
  type ChunkFrame,
  type ChunkId,
  type ChunkLocation,
} from '@decant/core';

/** Unwanted bytes that are read rather than starting another request. */
const MAX_GAP_BYTES = 64 * KIB;

/** Bytes after which a request for several chunks is large enough: it takes no further neighbour. */
export const COALESCE_BYTES = MIB;

/** Exactly `lengthBytes` bytes of a pack from `offset`; `P` is what the packs of a source are known by. */
export type ReadPackRange<P> = (
  pack: P,
  offset: number,
  lengthBytes: number,
  options: CallOptions,
) => Promise<Uint8Array>;

/** A chunk and where it lies; packs are numbered. */
export interface PlacedChunk extends Omit<ChunkLocation, 'packKey'> {
  readonly id: ChunkId;
  readonly pack: number;
}

/**
 * Chunks as they lie in packs, in pack order; those that lie within 64 KiB of each other come in one request, which grows
 * until it has `coalesceBytes`. Requests follow one another; at most `coalesceBytes` and one chunk are in memory.
 * @throws CAS_CHUNK_MISSING when a pack gives fewer or more bytes than asked for, and what `readRange` throws.
 */
export async function* readFrames(
  chunks: readonly PlacedChunk[],
  options: {
    readonly readRange: ReadPackRange<number>;
    /** What a pack is called in an error. */
    readonly nameOf: (pack: number) => string;
    readonly coalesceBytes: number;
    readonly signal: AbortSignal | undefined;
  },
): AsyncGenerator<ChunkFrame, void, undefined> {
  const { readRange, nameOf, coalesceBytes, signal } = options;
  for (const group of groups(chunks, coalesceBytes)) {
    signal?.throwIfAborted();
    const { pack, offset } = group[0]!;
    const lengthBytes = endOf(group.at(-1)!) - offset;
    const bytes = await readRange(pack, offset, lengthBytes, { signal });
    if (bytes.length !== lengthBytes) {
      throw new DecantError('CAS_CHUNK_MISSING', `Pack ${nameOf(pack)} gave ${bytes.length} bytes of ${lengthBytes}.`, {
        details: { pack: nameOf(pack), offset, lengthBytes },
      });
    }
    for (const { id, offset: from, encoding, plainBytes, storedBytes } of group) {
      yield { id, encoding, plainBytes, stored: bytes.subarray(from - offset, from - offset + storedBytes) };
    }
  }
}

function endOf(chunk: PlacedChunk): number {
  return chunk.offset + chunk.storedBytes;
}

function* groups(chunks: readonly PlacedChunk[], coalesceBytes: number): Generator<PlacedChunk[]> {
  const sorted = [...chunks].sort((a, b) => a.pack - b.pack || a.offset - b.offset);
  let group: PlacedChunk[] = [];
  for (const next of sorted) {
    const last = group.at(-1);
    const joins =
      last !== undefined &&
      last.pack === next.pack &&
      next.offset >= endOf(last) &&
      next.offset - endOf(last) <= MAX_GAP_BYTES &&
      endOf(last) - group[0]!.offset < coalesceBytes;
    if (!joins && group.length > 0) {
      yield group;
      group = [];
    }
    group.push(next);
  }
  if (group.length > 0) yield group;
}
