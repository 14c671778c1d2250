import type { ChunkEncoding, ChunkLocation } from '@decant/core';

const ENCODINGS: readonly ChunkEncoding[] = ['raw', 'zstd'];

/** Where a chunk lies, without its plain length, which the manifest has. */
export type ChunkPlace = Omit<ChunkLocation, 'plainBytes'>;

/**
 * Where the chunks of one image lie at rest, by the number of the manifest entry that has them first. It keeps 17
 * bytes an entry and each pack's key once: an image may have a million chunks.
 */
export class ChunkLocations {
  readonly #keys: string[] = [];
  readonly #numbers = new Map<string, number>();
  /** Number of the pack + 1, or 0 where nothing is known. */
  readonly #pack: Uint32Array;
  readonly #offset: Float64Array;
  readonly #storedBytes: Uint32Array;
  readonly #encoding: Uint8Array;

  constructor(entries: number) {
    this.#pack = new Uint32Array(entries);
    this.#offset = new Float64Array(entries);
    this.#storedBytes = new Uint32Array(entries);
    this.#encoding = new Uint8Array(entries);
  }

  has(entry: number): boolean {
    return this.#pack[entry] !== 0;
  }

  get(entry: number): ChunkPlace | undefined {
    const pack = this.#pack[entry] ?? 0;
    if (pack === 0) return undefined;
    return {
      packKey: this.#keys[pack - 1]!,
      offset: this.#offset[entry]!,
      storedBytes: this.#storedBytes[entry]!,
      encoding: ENCODINGS[this.#encoding[entry]!]!,
    };
  }

  set(entry: number, { packKey, offset, storedBytes, encoding }: ChunkPlace): void {
    let number = this.#numbers.get(packKey);
    if (number === undefined) {
      number = this.#keys.push(packKey);
      this.#numbers.set(packKey, number);
    }
    this.#pack[entry] = number;
    this.#offset[entry] = offset;
    this.#storedBytes[entry] = storedBytes;
    this.#encoding[entry] = ENCODINGS.indexOf(encoding);
  }
}
