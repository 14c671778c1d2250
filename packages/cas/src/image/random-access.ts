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
