import { KIB, PAGE_BYTES } from '@decant/core';

/** Groups of small files: no end by name before the first, which is the least chunk too; always an end at the last. */
const GROUP_MIN_PAGES = (64 * KIB) / PAGE_BYTES;
/** With so many pages a group ends before another package's files. */
const PACKAGE_MIN_PAGES = (32 * KIB) / PAGE_BYTES;
const GROUP_MAX_PAGES = (512 * KIB) / PAGE_BYTES;
/** A file of one page ends its group once in so many times, one of four pages twice as often. */
const FILES_PER_GROUP = 24;
/** Where files are larger, a group ends once in so many pages at least. */
const PAGES_PER_GROUP = 64;

/**
 * Decides where groups of small files end. A group ends behind a file whose own name, hashed to a number in [0, 1), is under
 * √pages / 24 or pages / 64, and before another package's files, so that the same files end groups wherever they lie and an
 * insertion moves one group only (the idea of content-defined chunking, with names in place of windows). By the name and not
 * by the content, so that an edit moves no end. By the root of the size, because files are added and edited one by one: for
 * a given number of groups, the bytes that change with a file are fewest when the bytes of a group are in proportion to
 * the root of the bytes per file.
 */
export class GroupCutter {
  #pages = 0;
  #ended = true;

  /** Whether a new group begins with this file, the next in order. `fraction` is of its name, in [0, 1). */
  begins(pages: number, fraction: number, samePackage: boolean): boolean {
    const full = this.#pages + pages > GROUP_MAX_PAGES;
    const begins = this.#ended || full || (!samePackage && this.#pages >= PACKAGE_MIN_PAGES);
    if (begins) this.#pages = 0;
    this.#pages += pages;
    const end = Math.max(Math.sqrt(pages) / FILES_PER_GROUP, pages / PAGES_PER_GROUP);
    this.#ended = this.#pages >= GROUP_MIN_PAGES && fraction < end;
    return begins;
  }
}
