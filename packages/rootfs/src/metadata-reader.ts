import type { RandomAccess } from '@decant/cas';
import { DecantError, KIB } from '@decant/core';

import { Budget } from './budget.ts';
import { Cooperation } from './cooperate.ts';
import { BLOCK_BYTES } from './erofs-format.ts';

const WINDOW_BYTES = 64 * KIB;
/** Reads between two that let other work run, whether or not they had to wait. */
const READS_AT_ONCE = 4000;
/** 16 MiB of windows. */
const MOST_WINDOWS = 256;

/** ROOTFS_INVALID with the byte at fault. */
export function invalidAt(offset: number, what: string, details: Record<string, unknown> = {}): DecantError {
  return new DecantError('ROOTFS_INVALID', `The filesystem image is broken at byte ${offset}: ${what}.`, {
    details: { offset, ...details },
  });
}

/**
 * Reads metadata from an image through a bounded cache and remembers which blocks were asked for.
 * Every range is checked against the filesystem's end before it is read.
 */
export class MetadataReader {
  readonly #source: RandomAccess;
  readonly #blocks: Budget;
  /** What may be asked for, blocks asked for twice counting twice: bounds the time that overlapping pieces can cost. */
  readonly #asked: Budget;
  readonly #signal: AbortSignal | undefined;
  readonly #cooperation: Cooperation;
  #atOnce = READS_AT_ONCE;
  readonly #windows = new Map<number, Uint8Array>();
  readonly #touched = new Set<number>();
  /** Bytes of the filesystem; reads beyond are refused. */
  endBytes: number;

  constructor(source: RandomAccess, mostBytes: number, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#blocks = new Budget(Math.ceil(mostBytes / BLOCK_BYTES), 'blocks of metadata');
    this.#asked = new Budget(4 * mostBytes, 'bytes of metadata, repetitions included');
    this.#signal = signal;
    this.#cooperation = new Cooperation(4000, signal);
    this.endBytes = source.sizeBytes;
  }

  /** The numbers of the blocks that were asked for. */
  get touched(): ReadonlySet<number> {
    return this.#touched;
  }

  /**
   * What lies in a window that is there, at once: most of an image is read in small steps, and waiting for each takes longer
   * than all else. Otherwise a promise.
   * @throws ROOTFS_INVALID when the range is not inside, LIMIT_EXCEEDED for too much metadata in all
   */
  read(offset: number, lengthBytes: number): Uint8Array | Promise<Uint8Array> {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + lengthBytes > this.endBytes) {
      throw invalidAt(offset, `${lengthBytes} bytes of metadata reach beyond the end of the filesystem`);
    }
    this.#touch(offset, lengthBytes);
    const first = Math.floor(offset / WINDOW_BYTES);
    const inside = offset - first * WINDOW_BYTES;
    const known = this.#windows.get(first);
    if (known !== undefined && inside + lengthBytes <= known.length && --this.#atOnce > 0) {
      return known.subarray(inside, inside + lengthBytes);
    }
    return this.#readLater(offset, lengthBytes);
  }

  async #readLater(offset: number, lengthBytes: number): Promise<Uint8Array> {
    // What was read at once counts as if it had been waited for.
    await this.#cooperation.step(READS_AT_ONCE - Math.max(0, this.#atOnce));
    this.#atOnce = READS_AT_ONCE;
    const first = Math.floor(offset / WINDOW_BYTES);
    const inside = offset - first * WINDOW_BYTES;
    if (inside + lengthBytes <= WINDOW_BYTES) {
      const window = await this.#window(first);
      return window.subarray(inside, inside + lengthBytes);
    }
    const bytes = new Uint8Array(lengthBytes);
    for (let done = 0; done < lengthBytes;) {
      const at = offset + done;
      const index = Math.floor(at / WINDOW_BYTES);
      const start = at - index * WINDOW_BYTES;
      const part = (await this.#window(index)).subarray(start, start + lengthBytes - done);
      bytes.set(part, done);
      done += part.length;
    }
    return bytes;
  }

  #touch(offset: number, lengthBytes: number): void {
    this.#asked.spend(lengthBytes);
    const last = Math.floor((offset + lengthBytes - 1) / BLOCK_BYTES);
    for (let block = Math.floor(offset / BLOCK_BYTES); block <= last; block++) {
      if (this.#touched.has(block)) continue;
      this.#blocks.spend(1);
      this.#touched.add(block);
    }
  }

  async #window(index: number): Promise<Uint8Array> {
    const known = this.#windows.get(index);
    if (known !== undefined) return known;
    this.#signal?.throwIfAborted();
    const offset = index * WINDOW_BYTES;
    const lengthBytes = Math.min(WINDOW_BYTES, this.#source.sizeBytes - offset);
    const bytes = await this.#source.read(offset, lengthBytes, { signal: this.#signal });
    if (this.#windows.size >= MOST_WINDOWS) {
      const [oldest] = this.#windows.keys();
      if (oldest !== undefined) this.#windows.delete(oldest);
    }
    this.#windows.set(index, bytes);
    return bytes;
  }
}
