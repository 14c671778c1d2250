import { DecantError, type ErrorCode } from '@decant/core';

/** Refuses bytes from outside, naming where. `offset` counts from the start of the object that is read. */
export function invalid(code: ErrorCode, what: string, offset: number, problem: string): DecantError {
  return new DecantError(code, `The ${what} is not valid: ${problem} (byte ${offset}).`, { details: { offset } });
}

/** A u64 that a JavaScript number can hold, or undefined. */
export function readU64(view: DataView, at: number): number | undefined {
  const value = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Writes a safe, non-negative integer as a u64. */
export function writeU64(view: DataView, at: number, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError('not a length or offset');
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** Offset of the first byte in `[start, end)` that is not zero, or undefined. */
export function firstNonZero(bytes: Uint8Array, start: number, end: number): number | undefined {
  for (let at = start; at < end; at++) if (bytes[at] !== 0) return at;
  return undefined;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Bytes that grow; for tables whose length is known only at the end. */
export class GrowingBytes {
  #bytes: Uint8Array<ArrayBuffer>;
  length = 0;

  constructor(capacity = 4096) {
    this.#bytes = new Uint8Array(capacity);
  }

  /** Room for `count` more bytes, zeroed, as a view that is valid until the next call. */
  extend(count: number): Uint8Array<ArrayBuffer> {
    const end = this.length + count;
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      larger.set(this.#bytes.subarray(0, this.length));
      this.#bytes = larger;
    }
    const part = this.#bytes.subarray(this.length, end);
    this.length = end;
    return part;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.length);
  }
}
