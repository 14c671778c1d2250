/** Reads numbers and runs of bytes one after the other; undefined beyond the end, and from then on. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  #at = 0;
  #failed = false;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get offset(): number {
    return this.#at;
  }

  get atEnd(): boolean {
    return !this.#failed && this.#at === this.#bytes.length;
  }

  /** A big-endian number of 1 to 3 bytes. */
  number(size: number): number | undefined {
    const bytes = this.bytes(size);
    return bytes?.reduce((value, byte) => (value << 8) | byte, 0);
  }

  bytes(length: number): Uint8Array | undefined {
    if (this.#failed || this.#at + length > this.#bytes.length) {
      this.#failed = true;
      return undefined;
    }
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** A run of bytes behind its length, which is a number of `size` bytes. */
  vector(size: number): Uint8Array | undefined {
    const length = this.number(size);
    return length === undefined ? undefined : this.bytes(length);
  }
}
