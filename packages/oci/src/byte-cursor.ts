/** Bytes read once, from the first to the last, with their position. */
export interface ByteCursor {
  /** Position of the next byte from the start. */
  readonly offset: number;
  /** The next `lengthBytes` bytes, fewer only at the end. They are good until the next call. */
  take(lengthBytes: number): Promise<Uint8Array>;
  /** Moves on by up to `lengthBytes`; returns by how many, fewer only at the end. */
  skip(lengthBytes: number): Promise<number>;
  /** Reads on to the end, so that a source that checks its bytes gets to do so. */
  drain(): Promise<void>;
  /** Gives the source up. */
  close(): Promise<void>;
}

/** A cursor on a stream of pieces of any size. */
export class StreamCursor implements ByteCursor {
  #source: AsyncIterator<Uint8Array>;
  #signal: AbortSignal | undefined;
  #piece: Uint8Array = new Uint8Array();
  #position = 0;
  #pieceStart = 0;
  #ended = false;

  constructor(source: AsyncIterable<Uint8Array>, signal?: AbortSignal) {
    this.#source = source[Symbol.asyncIterator]();
    this.#signal = signal;
  }

  get offset(): number {
    return this.#pieceStart + this.#position;
  }

  async take(lengthBytes: number): Promise<Uint8Array> {
    if (this.#piece.length - this.#position >= lengthBytes) return this.#slice(lengthBytes);
    const gathered: Uint8Array[] = [];
    let missing = lengthBytes;
    while (missing > 0 && (await this.#fill())) {
      // A copy, which `slice` of a Buffer is not: the piece belongs to the source again once the next one is asked for.
      const part = new Uint8Array(this.#slice(Math.min(missing, this.#piece.length - this.#position)));
      gathered.push(part);
      missing -= part.length;
    }
    return gathered.length === 1 ? gathered[0]! : Buffer.concat(gathered);
  }

  async skip(lengthBytes: number): Promise<number> {
    let missing = lengthBytes;
    while (missing > 0 && (await this.#fill())) {
      const step = Math.min(missing, this.#piece.length - this.#position);
      this.#position += step;
      missing -= step;
    }
    return lengthBytes - missing;
  }

  async drain(): Promise<void> {
    while (await this.#fill()) this.#position = this.#piece.length;
  }

  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#source.return?.();
  }

  #slice(lengthBytes: number): Uint8Array {
    const part = this.#piece.subarray(this.#position, this.#position + lengthBytes);
    this.#position += lengthBytes;
    return part;
  }

  async #fill(): Promise<boolean> {
    while (this.#position === this.#piece.length) {
      if (this.#ended) return false;
      this.#signal?.throwIfAborted();
      // Before the source has its piece back: it may give the memory up, and the piece is empty then.
      this.#pieceStart += this.#piece.length;
      this.#piece = new Uint8Array();
      this.#position = 0;
      const next = await this.#source.next();
      if (next.done === true) {
        this.#ended = true;
        return false;
      }
      this.#piece = next.value;
    }
    return true;
  }
}
