import { requireRange, type RandomAccess } from './random-access.ts';

/** Random access to bytes in memory; `read` gives views of them. */
export function createMemoryRandomAccess(bytes: Uint8Array): RandomAccess {
  return {
    sizeBytes: bytes.length,
    async read(offset, lengthBytes, { signal } = {}) {
      signal?.throwIfAborted();
      requireRange(offset, lengthBytes, bytes.length);
      return bytes.subarray(offset, offset + lengthBytes);
    },
  };
}
