/** An image or file that can be read anywhere: what filesystem readers work on. */
export interface RandomAccess {
  readonly sizeBytes: number;
  /** Exactly `lengthBytes` bytes from `offset`. @throws RangeError when the range is not inside. */
  read(
    offset: number,
    lengthBytes: number,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<Uint8Array>;
}

/** @throws RangeError when `[offset, offset + lengthBytes)` is not inside `[0, sizeBytes)`. */
export function requireRange(offset: number, lengthBytes: number, sizeBytes: number): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(lengthBytes) && offset >= 0 && lengthBytes >= 0;
  if (!valid || offset + lengthBytes > sizeBytes) {
    throw new RangeError(`no ${lengthBytes} bytes at ${offset} in ${sizeBytes}`);
  }
}
