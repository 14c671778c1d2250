import { PAGE_BYTES, toHex, type ChunkId } from '@decant/core';

import { CUT_RULES, MAX_HOLE_PAGES, STRIPE_PAGES, type ChunkLayout, type CutRules } from './chunk/cut-rules.ts';
import type { HashProvider } from './hash/hash-provider.ts';
import type { PageHasher } from './page-hasher.ts';

/** A stretch of an image, in image order. */
export type ImageChunk = Stretch<ChunkId>;

/** A stretch of an image, its chunks named by an id or by the bytes of their digest. */
export type Stretch<Name> =
  /** 1 to 256 pages of plain bytes, which belong to the chunker again once the next stretch is asked for. */
  | { readonly type: 'chunk'; readonly id: Name; readonly bytes: Uint8Array }
  /** Zeros: a multiple of 4,096 bytes, at most 2^26 pages. */
  | { readonly type: 'hole'; readonly lengthBytes: number };

/**
 * Cuts an image into chunks and holes by the rules of the format (docs/formats/chunking.md). Fill `room()` and say how
 * much with `filled`, or put `zeros`; then take stretches with `next` until there is none; at last `end`, and take
 * the rest. What comes out depends on the bytes and the hints only. Holds 4 MiB; dispose of it to let them be used again.
 */
export interface ImageCutter<Name = ChunkId> extends Disposable {
  /**
   * Where the next bytes of the image go: at least 1 MiB once `next` has given undefined. Valid until the next call.
   * Portions of about 128 KiB are fastest: they are hashed while the processor's cache has them.
   */
  room(): Uint8Array<ArrayBuffer>;
  /** The first `count` bytes of `room()` have been written. */
  filled(count: number): void;
  /** Takes some of `length` zero bytes, at least one where there is room, and returns how many. A long run is counted. */
  zeros(length: number): number;
  /** The image writer wants a cut here. @throws RangeError off a page boundary. */
  hint(): void;
  /** There are no more bytes; the last page is filled with zeros. */
  end(): void;
  /** The next stretch that is known, or undefined when more input is needed or everything has been given. */
  next(): Stretch<Name> | undefined;
}

/** The rest is moved to the front of the buffer once so many times its bytes lie before it and are done with. */
const REUSE_RATIO = 2;

export interface ImageCutterOptions {
  readonly layout: ChunkLayout;
  readonly hash: HashProvider;
}

export async function openImageCutter({ layout, hash }: ImageCutterOptions): Promise<ImageCutter> {
  return createImageCutter(layout, await hash.createPageHasher(), (digest) => toHex(digest) as ChunkId);
}

/** A cutter on a page hasher, which is disposed of with it; `nameOf` makes of a digest of 32 bytes what chunks are named by. */
export function createImageCutter<Name>(
  layout: ChunkLayout,
  hasher: PageHasher,
  nameOf: (digest: Uint8Array) => Name,
): ImageCutter<Name> {
  return new Cutter(CUT_RULES[layout], hasher, nameOf);
}

/**
 * The state between pages. The hasher's buffer holds, from `#base`: the pages of the open chunk, which are hashed,
 * then pages of which it is not yet known whether they are a hole (fewer than the minimum, all zeros), then pages not
 * looked at.
 */
class Cutter<Name> implements ImageCutter<Name> {
  readonly #rules: CutRules;
  readonly #hasher: PageHasher;
  readonly #nameOf: (digest: Uint8Array) => Name;
  readonly #buffer: Uint8Array<ArrayBuffer>;
  #base = 0;
  #filled = 0;
  /** Pages of the open chunk, and where it ends, in pages from the start of the image. */
  #chunkPages = 0;
  #position = 0;
  /** Zero pages after the open chunk that are not yet known to be a hole. */
  #pendingZeros = 0;
  /** Zero pages after the open chunk that are data, and still to be cut. */
  #decidedZeros = 0;
  /** Pages of the open hole; a minimum or more when there is one, and then there is no open chunk. */
  #holePages = 0;
  #holeEnded = false;
  /** Bit i: the image writer wants a cut before page i after the open chunk. */
  #hints = 0;
  #ended = false;

  constructor(rules: CutRules, hasher: PageHasher, nameOf: (digest: Uint8Array) => Name) {
    this.#rules = rules;
    this.#hasher = hasher;
    this.#nameOf = nameOf;
    this.#buffer = hasher.buffer;
  }

  [Symbol.dispose](): void {
    this.#hasher[Symbol.dispose]();
  }

  room(): Uint8Array<ArrayBuffer> {
    // Early, so that what is written and hashed next lies where the processor's second cache still has the lines.
    const rest = this.#filled - this.#base;
    if (this.#base > REUSE_RATIO * rest || (this.#base > 0 && this.#filled > this.#buffer.length / 2)) {
      this.#buffer.copyWithin(0, this.#base, this.#filled);
      this.#filled -= this.#base;
      this.#base = 0;
    }
    return this.#buffer.subarray(this.#filled);
  }

  filled(count: number): void {
    if (!Number.isInteger(count) || count < 0 || count > this.#buffer.length - this.#filled) {
      throw new RangeError('more bytes than there was room for');
    }
    this.#filled += count;
  }

  zeros(length: number): number {
    const partial = this.#partialBytes();
    if (this.#holePages > 0 && partial === 0 && length >= PAGE_BYTES) {
      const pages = Math.floor(length / PAGE_BYTES);
      this.#holePages += pages;
      return pages * PAGE_BYTES;
    }
    const room = this.room();
    // Enough to end the open page and, with the minimum, to open a hole.
    const count = Math.min(length, room.length, this.#rules.minPages * PAGE_BYTES + (PAGE_BYTES - partial));
    room.fill(0, 0, count);
    this.#filled += count;
    return count;
  }

  #partialBytes(): number {
    return (this.#filled - this.#base) % PAGE_BYTES;
  }

  hint(): void {
    if (this.#partialBytes() !== 0) {
      throw new RangeError('an image writer may ask for a cut only at a multiple of 4,096 bytes');
    }
    // Before the next page: an open hole ends chunks anyway.
    if (this.#rules.hints && this.#holePages === 0) this.#hints |= 1 << this.#pendingZeros;
  }

  end(): void {
    const partial = this.#partialBytes();
    if (partial !== 0) this.zeros(PAGE_BYTES - partial);
    this.#ended = true;
  }

  next(): Stretch<Name> | undefined {
    for (;;) {
      if (this.#holeEnded) return this.#takeHole();
      while (this.#decidedZeros > 0) {
        const chunk = this.#addZeroPage();
        if (chunk !== undefined) return chunk;
      }
      const at = this.#base + (this.#chunkPages + this.#pendingZeros) * PAGE_BYTES;
      const available = Math.floor((this.#filled - at) / PAGE_BYTES);
      if (available === 0) {
        if (!this.#ended) return undefined;
        if (this.#holePages > 0) return this.#takeHole();
        // After the last page, a run of zeros below the minimum is data.
        if (!this.#decideZeros()) return this.#chunkPages > 0 ? this.#takeChunk() : undefined;
        continue;
      }
      const zeros = this.#hasher.zeroPages(at, available);
      const chunk = zeros > 0 ? this.#zeroPages(zeros) : this.#dataPages(at, available);
      if (chunk !== undefined) return chunk;
    }
  }

  #zeroPages(count: number): Stretch<Name> | undefined {
    if (this.#holePages > 0) {
      this.#holePages += count;
      this.#base += count * PAGE_BYTES;
      return undefined;
    }
    this.#pendingZeros += count;
    if (this.#pendingZeros < this.#rules.minPages) return undefined;
    const chunk = this.#chunkPages > 0 ? this.#takeChunk() : undefined;
    this.#base += this.#pendingZeros * PAGE_BYTES;
    this.#holePages = this.#pendingZeros;
    this.#pendingZeros = 0;
    this.#hints = 0;
    return chunk;
  }

  #decideZeros(): boolean {
    this.#decidedZeros = this.#pendingZeros;
    this.#pendingZeros = 0;
    return this.#decidedZeros > 0;
  }

  /** Moves one decided page into the open chunk; returns the chunk when that ends it, before or after the page. */
  #addZeroPage(): Stretch<Name> | undefined {
    if (this.#mustCut()) return this.#takeChunk();
    this.#hints >>>= 1;
    this.#decidedZeros--;
    this.#hasher.plainPages(this.#base + this.#chunkPages * PAGE_BYTES, 1, this.#chunkPages);
    this.#chunkPages++;
    this.#position++;
    return this.#chunkPages === this.#rules.maxPages ? this.#takeChunk() : undefined;
  }

  /** At a page that is not zero: what comes before it first, then as many pages as the open chunk takes. */
  #dataPages(at: number, available: number): Stretch<Name> | undefined {
    if (this.#holePages > 0) {
      // Looked at again once the hole has been taken.
      this.#holeEnded = true;
      return undefined;
    }
    if (this.#decideZeros()) return undefined;
    if (this.#mustCut()) return this.#takeChunk();
    // A hint is given when all pages before it have been looked at, so there is none among these.
    this.#hints >>>= 1;
    const { maxPages } = this.#rules;
    const count = Math.min(available, maxPages - this.#chunkPages, STRIPE_PAGES - (this.#position % STRIPE_PAGES));
    const { pages, ends } = this.#hasher.dataPages(at, count, this.#chunkPages, this.#rules);
    this.#chunkPages += pages;
    this.#position += pages;
    return ends || this.#chunkPages === maxPages ? this.#takeChunk() : undefined;
  }

  /** Whether an open chunk ends before the next page, whatever that holds. */
  #mustCut(): boolean {
    return this.#chunkPages > 0 && ((this.#hints & 1) === 1 || this.#position % STRIPE_PAGES === 0);
  }

  #takeChunk(): Stretch<Name> {
    const bytes = this.#buffer.subarray(this.#base, this.#base + this.#chunkPages * PAGE_BYTES);
    const id = this.#nameOf(this.#hasher.endChunk(this.#base, this.#chunkPages));
    this.#base += bytes.length;
    this.#chunkPages = 0;
    return { type: 'chunk', id, bytes };
  }

  #takeHole(): Stretch<Name> {
    const pages = Math.min(this.#holePages, MAX_HOLE_PAGES);
    this.#holePages -= pages;
    this.#position += pages;
    this.#holeEnded = this.#holePages > 0;
    return { type: 'hole', lengthBytes: pages * PAGE_BYTES };
  }
}
