import { readSync } from 'node:fs';

import { DecantError, MIB, PAGE_BYTES } from '@decant/core';

import { CUT_RULES, isZeroPage, STRIPE_PAGES } from '../chunk/cut-rules.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import { createImageCutter, type Stretch } from '../image-cutter.ts';
import type { PageHasher } from '../page-hasher.ts';

export const STRIPE_BYTES = STRIPE_PAGES * PAGE_BYTES;
const READ_BYTES = MIB;
const RULES = CUT_RULES.foreign;
const EDGE_BYTES = RULES.minPages * PAGE_BYTES;

/** An open file whose size does not change. */
export interface StripedFile {
  readonly fd: number;
  readonly sizeBytes: number;
}

export function stripeCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / STRIPE_BYTES);
}

/**
 * Cuts single stripes (64 MiB, the last one short) of a file by the rules for foreign images, such that the stretches of
 * all stripes in order are those of `chunkImage` over the whole file, once holes that adjoin are joined. Chunks end at
 * stripes by the format. What a stripe alone cannot know is whether a few zero pages at its edge are part of a hole that
 * reaches across; so the pages beside it, as many as the shortest hole has, are looked at too.
 */
export class StripeScanner {
  readonly #file: StripedFile;
  readonly #hasher: PageHasher;
  readonly #edge = new Uint8Array(2 * EDGE_BYTES);

  private constructor(file: StripedFile, hasher: PageHasher) {
    this.#file = file;
    this.#hasher = hasher;
  }

  static async open(file: StripedFile, hash: HashProvider): Promise<StripeScanner> {
    return new StripeScanner(file, await hash.createPageHasher());
  }

  /**
   * The stretches of one stripe, chunks named by their digests. The bytes of chunks are valid until `reuse` is called, which
   * is about once a MiB, or the iteration ends. @throws CAS_FILE_CHANGED.
   */
  *scan(stripe: number, reuse: () => void): Generator<Stretch<Uint8Array>, void, undefined> {
    const start = stripe * STRIPE_BYTES;
    const end = Math.min(start + STRIPE_BYTES, this.#file.sizeBytes);
    const [before, first] = this.#zerosAround(start);
    const [last, after] = this.#zerosAround(end);
    const leading = joins(first, before) ? Math.min(first * PAGE_BYTES, end - start) : 0;
    if (leading > 0) yield { type: 'hole', lengthBytes: first * PAGE_BYTES };
    if (start + leading === end) return;
    const trailing = joins(last, after) ? last * PAGE_BYTES : 0;
    yield* this.#stretches(start + leading, end - trailing, reuse);
    if (trailing > 0) yield { type: 'hole', lengthBytes: trailing };
  }

  *#stretches(start: number, end: number, reuse: () => void): Generator<Stretch<Uint8Array>, void, undefined> {
    // Not disposed of: the hasher serves all stripes.
    const cutter = createImageCutter('foreign', this.#hasher, (digest) => digest);
    for (let at = start; at < end;) {
      // Straight into the memory in which it is hashed.
      reuse();
      const room = cutter.room();
      const count = Math.min(room.length, READ_BYTES, end - at);
      readExactly(this.#file.fd, room.subarray(0, count), at);
      cutter.filled(count);
      at += count;
      for (let next = cutter.next(); next !== undefined; next = cutter.next()) yield next;
    }
    cutter.end();
    for (let next = cutter.next(); next !== undefined; next = cutter.next()) yield next;
    reuse();
  }

  /** Zero pages that end at an offset and that begin there, each counted up to the minimum. */
  #zerosAround(offset: number): [number, number] {
    const { sizeBytes, fd } = this.#file;
    // The end of the file may lie within a page, which counts as filled with zeros.
    const middle = Math.ceil(offset / PAGE_BYTES) * PAGE_BYTES;
    const from = Math.max(0, middle - EDGE_BYTES);
    const to = Math.min(middle + EDGE_BYTES, sizeBytes);
    this.#edge.fill(0);
    readExactly(fd, this.#edge.subarray(0, to - from), from);
    const words = new Uint32Array(this.#edge.buffer);
    const zero = (page: number) => isZeroPage(words, (page * PAGE_BYTES) / 4);
    const split = (middle - from) / PAGE_BYTES;
    const pages = Math.ceil((to - from) / PAGE_BYTES);
    let before = 0;
    while (before < split && zero(split - before - 1)) before++;
    let after = 0;
    while (split + after < pages && zero(split + after)) after++;
    return [before, after];
  }
}

/** Whether a run too short to be a hole by itself is one with the zeros beyond the edge. */
function joins(inside: number, outside: number): boolean {
  return inside > 0 && inside < RULES.minPages && inside + outside >= RULES.minPages;
}

function readExactly(fd: number, target: Uint8Array, position: number): void {
  for (let done = 0; done < target.length;) {
    const count = readSync(fd, target, done, target.length - done, position + done);
    if (count === 0) {
      throw new DecantError('CAS_FILE_CHANGED', 'The file became shorter while it was read.', {
        details: { offset: position + done },
      });
    }
    done += count;
  }
}
