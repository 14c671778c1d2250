import { closeSync, fsyncSync, openSync, writevSync } from 'node:fs';

import { KIB, MIB } from '@decant/core';

/**
 * Most bytes of one write. From 2 MiB on, Linux looks for pages of that size for its cache, which costs more than everything
 * else together when memory is in pieces.
 */
const WRITE_BYTES = MIB;
/**
 * Writes end at multiples of this. Measured on ext4 (Linux 6.18), system time a GB: 0.50 s in pieces of 64 KiB at odd offsets,
 * 0.22 s in pieces of about 1 MiB that begin at multiples of 64 KiB, because the cache then has few large pages.
 */
const ALIGN_BYTES = 64 * KIB;
/** Below this, what is there is kept for the next write. */
const KEEP_BYTES = 256 * KIB;
/** Linux takes at most 1,024 pieces in one write. */
const MAX_PARTS = 1000;

/** A new file that is written front to back, in few large writes from where the bytes are. Holds 256 KiB. */
export class PackFile implements Disposable {
  readonly #fd: number;
  /** What is not written yet; first, if there is any, what was kept. */
  #parts: Uint8Array[] = [];
  #pendingBytes = 0;
  #writtenBytes = 0;
  readonly #kept: Uint8Array<ArrayBuffer>;

  /** @param kept memory for what is kept between writes, {@link PackFile.KEPT_BYTES}; of one file at a time */
  constructor(path: string, kept: Uint8Array<ArrayBuffer>) {
    this.#kept = kept;
    this.#fd = openSync(path, 'wx');
  }

  static readonly KEPT_BYTES = KEEP_BYTES;

  /** Appends bytes, which must not change before the next {@link settle} or {@link finish}. */
  append(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#parts.push(bytes);
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes >= WRITE_BYTES || this.#parts.length >= MAX_PARTS) this.#write(this.#alignedBytes());
  }

  /** From now on, bytes that were appended may change. */
  settle(): void {
    if (this.#pendingBytes >= KEEP_BYTES) this.#write(this.#alignedBytes());
    let end = 0;
    for (const part of this.#parts) {
      // A part that was kept before stays where it is, or moves forward.
      this.#kept.set(part, end);
      end += part.length;
    }
    this.#parts = end === 0 ? [] : [this.#kept.subarray(0, end)];
  }

  /** Writes what is left, to the disk if wanted. */
  finish(fsync: boolean): void {
    this.#write(this.#pendingBytes);
    if (fsync) fsyncSync(this.#fd);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }

  /** Pending bytes up to the last multiple of the alignment. */
  #alignedBytes(): number {
    const end = this.#writtenBytes + this.#pendingBytes;
    return Math.max(0, this.#pendingBytes - (end % ALIGN_BYTES));
  }

  #write(count: number): void {
    for (let left = count; left > 0;) {
      // A write may take a part only, for example when the disk is nearly full; the rest is tried again.
      const written = writevSync(this.#fd, this.#front(Math.min(left, WRITE_BYTES)));
      if (written === 0) throw new Error('the file takes no more bytes');
      this.#drop(written);
      left -= written;
    }
  }

  /** The first parts, `count` bytes of them, the last one cut. */
  #front(count: number): Uint8Array[] {
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for (const part of this.#parts) {
      const wanted = Math.min(part.length, count - bytes);
      if (wanted === 0) break;
      parts.push(wanted === part.length ? part : part.subarray(0, wanted));
      bytes += wanted;
    }
    return parts;
  }

  #drop(count: number): void {
    let whole = 0;
    let rest = count;
    while (whole < this.#parts.length && rest >= this.#parts[whole]!.length) rest -= this.#parts[whole++]!.length;
    this.#parts.splice(0, whole);
    if (rest > 0) this.#parts[0] = this.#parts[0]!.subarray(rest);
    this.#pendingBytes -= count;
    this.#writtenBytes += count;
  }
}
