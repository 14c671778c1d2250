import type { ContextEntry } from '../entry.ts';
import { BLOCK_BYTES, padded, tarHeader } from './tar-header.ts';

/** Two blocks of zeros end an archive. */
const END_BYTES = 2 * BLOCK_BYTES;
/** Pieces of the stream are this large, but the last. */
const PIECE_BYTES = 256 * 1024;

/** Yields exactly `entry.sizeBytes` bytes, or throws. A yielded array is used before the next is asked for. */
export type ReadContent = (entry: ContextEntry) => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** Bytes of the whole archive. */
export function tarBytesOf(entries: readonly ContextEntry[]): number {
  return entries.reduce((sum, entry) => sum + tarHeader(entry).length + padded(entry.sizeBytes), END_BYTES);
}

/** The archive of the entries in the order given, in pieces that the caller may keep. */
export async function* tarStream(
  entries: readonly ContextEntry[],
  readContent: ReadContent,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  const pieces = new Pieces();
  for (const entry of entries) {
    signal?.throwIfAborted();
    yield* pieces.add(tarHeader(entry));
    if (entry.type !== 'file') continue;
    for await (const bytes of readContent(entry)) {
      signal?.throwIfAborted();
      yield* pieces.add(bytes);
    }
    yield* pieces.add(new Uint8Array(padded(entry.sizeBytes) - entry.sizeBytes));
  }
  yield* pieces.add(new Uint8Array(END_BYTES));
  yield* pieces.rest();
}

/** Gathers small writes into pieces of one size. */
class Pieces {
  #piece = new Uint8Array(PIECE_BYTES);
  #filled = 0;

  *add(bytes: Uint8Array): Generator<Uint8Array<ArrayBuffer>, void> {
    let at = 0;
    while (at < bytes.length) {
      const part = bytes.subarray(at, at + PIECE_BYTES - this.#filled);
      this.#piece.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled < PIECE_BYTES) return;
      yield this.#piece;
      this.#piece = new Uint8Array(PIECE_BYTES);
      this.#filled = 0;
    }
  }

  *rest(): Generator<Uint8Array<ArrayBuffer>, void> {
    if (this.#filled > 0) yield this.#piece.subarray(0, this.#filled);
  }
}
