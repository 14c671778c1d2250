import type { ChunkId } from '@decant/core';

/** Verified plain chunks in memory, the ones longest unused forgotten first beyond a number of bytes. */
export class ChunkMemory {
  // A Map iterates in order of insertion: the first is the one longest unused.
  readonly #chunks = new Map<ChunkId, Uint8Array>();
  readonly #maxBytes: number;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  has(id: ChunkId): boolean {
    return this.#chunks.has(id);
  }

  /** The chunk, if it is here under this length; it counts as used now. */
  get(id: ChunkId, plainBytes: number): Uint8Array | undefined {
    const plain = this.#chunks.get(id);
    if (plain?.length !== plainBytes) return undefined;
    this.#chunks.delete(id);
    this.#chunks.set(id, plain);
    return plain;
  }

  /** Keeps the array itself: nobody may write to it any more. */
  put(id: ChunkId, plain: Uint8Array): void {
    this.#bytes += plain.length - (this.#chunks.get(id)?.length ?? 0);
    this.#chunks.delete(id);
    this.#chunks.set(id, plain);
    for (const [oldest, bytes] of this.#chunks) {
      if (this.#bytes <= this.#maxBytes) break;
      this.#chunks.delete(oldest);
      this.#bytes -= bytes.length;
    }
  }
}
