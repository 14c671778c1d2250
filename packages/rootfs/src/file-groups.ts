import { KIB, MIB, PAGE_BYTES, roundUp } from '@decant/core';

/** A file of at least this many stored bytes begins with a cut of its own. */
export const LARGE_FILE_BYTES = 128 * KIB;

/** Groups of small files: no end before the first, always an end at the last, and this on average in between. */
const GROUP_MIN_BYTES = 64 * KIB;
const GROUP_MEAN_BYTES = 384 * KIB;
const GROUP_MAX_BYTES = MIB;

/**
 * Decides where groups of small files end. A group ends behind a file whose own hash, taken as a number in [0, 1),
 * is under its size / mean, so that the same files end groups wherever they lie and an insertion moves one group
 * only (the idea of content-defined chunking, with files in place of windows).
 */
export class GroupCutter {
  #bytes = 0;
  #ended = true;

  /** Whether a new group begins with this file, the next in order. `hash` is called at most once. */
  begins(storedBytes: number, hash: () => Uint8Array): boolean {
    const bytes = roundUp(storedBytes, PAGE_BYTES);
    const begins = this.#ended || this.#bytes + bytes > GROUP_MAX_BYTES;
    if (begins) this.#bytes = 0;
    this.#bytes += bytes;
    this.#ended = this.#bytes >= GROUP_MIN_BYTES && fractionOf(hash()) < bytes / GROUP_MEAN_BYTES;
    return begins;
  }
}

function fractionOf(hash: Uint8Array): number {
  return new DataView(hash.buffer, hash.byteOffset, hash.byteLength).getUint32(0, true) / 2 ** 32;
}
