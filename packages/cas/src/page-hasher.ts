import { MIB, PAGE_BYTES } from '@decant/core';

import { isZeroPage, pageHash, type CutRules } from './chunk/cut-rules.ts';

/** What `dataPages` did: how many pages it took, and whether the last of them ends the chunk by its content. */
export interface DataPages {
  readonly pages: number;
  readonly ends: boolean;
}

/**
 * Looks at the pages of an image and hashes them into the open chunk, of which there is one at a time. The pages lie in the
 * hasher's own buffer; addresses (`at`) are bytes in it. A chunk has at most 256 pages, given in order; `have` is how many
 * were given before. Cutting at the maximum, at hints and at stripes is the caller's.
 */
export interface PageHasher extends Disposable {
  /** 4 MiB. Filled by the caller, also straight from a file. After disposal it belongs to somebody else. */
  readonly buffer: Uint8Array<ArrayBuffer>;
  /** How many of the `count` pages are zeros before the first that is not. */
  zeroPages(at: number, count: number): number;
  /** Hashes pages, up to `count`, to one of zeros (not taken) or one whose hash ends the chunk (taken). */
  dataPages(at: number, count: number, have: number, rules: CutRules): DataPages;
  /** Hashes `count` pages, whatever they hold. */
  plainPages(at: number, count: number, have: number): void;
  /** The BLAKE3 digest of the chunk, which has `pages` pages from `at` on; the next page begins another. */
  endChunk(at: number, pages: number): Uint8Array;
}

export const PAGE_BUFFER_BYTES = 4 * MIB;

/** A page hasher in plain code over a digest function: it scans first and hashes each chunk when it is complete. */
export function createPortablePageHasher(blake3: (data: Uint8Array) => Uint8Array): PageHasher {
  const buffer = new Uint8Array(PAGE_BUFFER_BYTES);
  const words = new Uint32Array(buffer.buffer);
  const isZero = (at: number) => isZeroPage(words, at / 4);
  return {
    buffer,

    zeroPages(at, count) {
      let pages = 0;
      while (pages < count && isZero(at + pages * PAGE_BYTES)) pages++;
      return pages;
    },

    dataPages(at, count, have, { minPages, cutBelow }) {
      for (let pages = 0; pages < count; pages++) {
        const page = at + pages * PAGE_BYTES;
        if (isZero(page)) return { pages, ends: false };
        if (have + pages + 1 >= minPages && pageHash(words, page / 4) < cutBelow) {
          return { pages: pages + 1, ends: true };
        }
      }
      return { pages: count, ends: false };
    },

    plainPages: () => undefined,
    endChunk: (at, pages) => blake3(buffer.subarray(at, at + pages * PAGE_BYTES)),
    [Symbol.dispose]: () => undefined,
  };
}
