import { MIB, PAGE_BYTES, toHex, type ChunkId } from '@decant/core';

import {
  CUT_RULES,
  MAX_HOLE_PAGES,
  STRIPE_PAGES,
  isZeroPage,
  pageHash,
  type ChunkLayout,
  type CutRules,
} from './cut-rules.ts';
import type { HashProvider } from './hash-provider.ts';
import type { ImagePiece } from './piece.ts';

/** A stretch of an image, in image order. */
export type ImageChunk =
  /** 1 to 256 pages of plain bytes, which belong to the chunker again once the next stretch is asked for. */
  | { readonly type: 'chunk'; readonly id: ChunkId; readonly bytes: Uint8Array }
  /** Zeros: a multiple of 4,096 bytes, at most 2^26 pages. */
  | { readonly type: 'hole'; readonly lengthBytes: number };

export interface ChunkImageOptions {
  readonly layout: ChunkLayout;
  readonly hash: HashProvider;
  readonly signal?: AbortSignal | undefined;
}

/** Bytes of data between two turns of the event loop, so that an abort, a timer or a socket gets its turn. */
const BREATH_BYTES = 32 * MIB;

/**
 * Cuts an image into chunks and holes by the rules of the format (docs/formats/chunking.md); the last page is
 * filled with zeros. The result depends on the bytes and the hints only, never on how they are split into pieces.
 * Uses one buffer of 4 MiB. @throws RangeError for a hint that is not on a page boundary or a negative length.
 */
export async function* chunkImage(
  pieces: AsyncIterable<ImagePiece> | Iterable<ImagePiece>,
  options: ChunkImageOptions,
): AsyncGenerator<ImageChunk, void, undefined> {
  const { hash, signal } = options;
  const cutter = new Cutter(CUT_RULES[options.layout]);
  let sinceBreath = 0;
  const finished = (stretch: Stretch): ImageChunk =>
    typeof stretch === 'number'
      ? { type: 'hole', lengthBytes: stretch * PAGE_BYTES }
      : { type: 'chunk', id: toHex(hash.blake3(stretch)) as ChunkId, bytes: stretch };

  signal?.throwIfAborted();
  for await (const piece of pieces) {
    signal?.throwIfAborted();
    if (piece.type === 'cut') {
      cutter.hint();
      continue;
    }
    let done = 0;
    const length = piece.type === 'data' ? piece.bytes.length : piece.lengthBytes;
    if (!Number.isSafeInteger(length) || length < 0) throw new RangeError('a piece of an image has no such length');
    while (done < length) {
      const taken = piece.type === 'data' ? cutter.fill(piece.bytes, done) : cutter.fillZeros(length - done);
      done += taken;
      for (let next = cutter.next(); next !== undefined; next = cutter.next()) {
        yield finished(next);
        signal?.throwIfAborted();
      }
      if (piece.type !== 'data') continue;
      sinceBreath += taken;
      if (sinceBreath < BREATH_BYTES) continue;
      sinceBreath = 0;
      await new Promise((resolve) => setTimeout(resolve, 0));
      signal?.throwIfAborted();
    }
  }
  cutter.end();
  for (let next = cutter.next(); next !== undefined; next = cutter.next()) yield finished(next);
}

/** The plain bytes of a chunk, or the pages of a hole. */
type Stretch = Uint8Array | number;

/**
 * The state between pages. The buffer holds, from `#base`: the pages of the open chunk, then pages of which it is
 * not yet known whether they are a hole (fewer than the minimum, all zeros), then pages not looked at.
 */
class Cutter {
  readonly #rules: CutRules;
  readonly #buffer = new Uint8Array(4 * MIB);
  readonly #words = new Uint32Array(this.#buffer.buffer);
  #base = 0;
  #filled = 0;
  /** Pages of the open chunk, and where it ends, in pages from the start of the image. */
  #chunkPages = 0;
  #position = 0;
  /** Zero pages after the open chunk that are not yet known to be a hole. */
  #pendingZeros = 0;
  /** Pages after the open chunk that are data, all but the last of them zeros; still to be cut. */
  #decided = 0;
  #lastPageCuts = false;
  /** Pages of the open hole; a minimum or more when there is one, and then there is no open chunk. */
  #holePages = 0;
  #holeEnded = false;
  /** Bit i: the image writer wants a cut before page i after the open chunk. */
  #hints = 0;
  #ended = false;

  constructor(rules: CutRules) {
    this.#rules = rules;
  }

  /** Takes bytes from `from` on, as many as there is room for, and returns how many; `next` makes room. */
  fill(bytes: Uint8Array, from: number): number {
    const count = Math.min(bytes.length - from, this.#room());
    this.#buffer.set(from === 0 && count === bytes.length ? bytes : bytes.subarray(from, from + count), this.#filled);
    this.#filled += count;
    return count;
  }

  /** As `fill` for zeros: a long run is counted, not written. */
  fillZeros(length: number): number {
    const partial = (this.#filled - this.#base) % PAGE_BYTES;
    if (this.#holePages > 0 && partial === 0 && length >= PAGE_BYTES) {
      const pages = Math.floor(length / PAGE_BYTES);
      this.#holePages += pages;
      return pages * PAGE_BYTES;
    }
    // Enough to end the open page and, with the minimum, to open a hole.
    const count = Math.min(length, this.#room(), this.#rules.minPages * PAGE_BYTES + (PAGE_BYTES - partial));
    this.#buffer.fill(0, this.#filled, this.#filled + count);
    this.#filled += count;
    return count;
  }

  #room(): number {
    if (this.#base > 0 && this.#filled > this.#buffer.length / 2) {
      this.#buffer.copyWithin(0, this.#base, this.#filled);
      this.#filled -= this.#base;
      this.#base = 0;
    }
    return this.#buffer.length - this.#filled;
  }

  hint(): void {
    if ((this.#filled - this.#base) % PAGE_BYTES !== 0) {
      throw new RangeError('an image writer may ask for a cut only at a multiple of 4,096 bytes');
    }
    // Before the next page: an open hole ends chunks anyway.
    if (this.#rules.hints && this.#holePages === 0) this.#hints |= 1 << this.#pendingZeros;
  }

  end(): void {
    const partial = (this.#filled - this.#base) % PAGE_BYTES;
    if (partial !== 0) this.fillZeros(PAGE_BYTES - partial);
    this.#ended = true;
  }

  /** The next chunk or hole that is known, or undefined when more input is needed. */
  next(): Stretch | undefined {
    for (;;) {
      if (this.#holeEnded) return this.#takeHole();
      while (this.#decided > 0) {
        const chunk = this.#cutDecided();
        if (chunk !== undefined) return chunk;
      }
      const at = this.#base + (this.#chunkPages + this.#pendingZeros) * PAGE_BYTES;
      if (at + PAGE_BYTES > this.#filled) return this.#ended ? this.#takeRest() : undefined;
      if (isZeroPage(this.#words, at / 4)) {
        const chunk = this.#zeroPage();
        if (chunk !== undefined) return chunk;
      } else {
        this.#dataPage(at);
      }
    }
  }

  #zeroPage(): Stretch | undefined {
    if (this.#holePages > 0) {
      this.#holePages++;
      this.#base += PAGE_BYTES;
      return undefined;
    }
    if (++this.#pendingZeros < this.#rules.minPages) return undefined;
    const chunk = this.#chunkPages > 0 ? this.#takeChunk() : undefined;
    this.#base += this.#pendingZeros * PAGE_BYTES;
    this.#holePages = this.#pendingZeros;
    this.#pendingZeros = 0;
    this.#hints = 0;
    return chunk;
  }

  #dataPage(at: number): void {
    if (this.#holePages > 0) {
      // Looked at again once the hole has been taken.
      this.#holeEnded = true;
      return;
    }
    this.#decided = this.#pendingZeros + 1;
    this.#pendingZeros = 0;
    this.#lastPageCuts = pageHash(this.#words, at / 4) < this.#rules.cutBelow;
  }

  /** Moves one decided page into the open chunk; returns the chunk when that ends it, before or after the page. */
  #cutDecided(): Uint8Array | undefined {
    const { minPages, maxPages } = this.#rules;
    const wanted = (this.#hints & 1) === 1 || this.#position % STRIPE_PAGES === 0;
    if (wanted && this.#chunkPages > 0) return this.#takeChunk();
    this.#hints >>>= 1;
    this.#decided--;
    this.#chunkPages++;
    this.#position++;
    const content = this.#decided === 0 && this.#lastPageCuts && this.#chunkPages >= minPages;
    return content || this.#chunkPages === maxPages ? this.#takeChunk() : undefined;
  }

  #takeChunk(): Uint8Array {
    const chunk = this.#buffer.subarray(this.#base, this.#base + this.#chunkPages * PAGE_BYTES);
    this.#base += chunk.length;
    this.#chunkPages = 0;
    return chunk;
  }

  #takeHole(): number {
    const pages = Math.min(this.#holePages, MAX_HOLE_PAGES);
    this.#holePages -= pages;
    this.#position += pages;
    this.#holeEnded = this.#holePages > 0;
    return pages;
  }

  /** After the last page: a short run of zeros is data, then comes what is open. */
  #takeRest(): Stretch | undefined {
    if (this.#holePages > 0) return this.#takeHole();
    while (this.#pendingZeros > 0) {
      this.#decided = this.#pendingZeros;
      this.#pendingZeros = 0;
      this.#lastPageCuts = false;
      while (this.#decided > 0) {
        const chunk = this.#cutDecided();
        if (chunk !== undefined) return chunk;
      }
    }
    return this.#chunkPages > 0 ? this.#takeChunk() : undefined;
  }
}
