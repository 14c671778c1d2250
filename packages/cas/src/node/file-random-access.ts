import { open } from 'node:fs/promises';

import { requireRange, type RandomAccess } from '../image/random-access.ts';

/** Opens a regular file for reading anywhere. Its size is that at opening; a file cut short later fails the read. */
export async function openFileRandomAccess(path: string): Promise<RandomAccess & AsyncDisposable> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    return {
      sizeBytes: size,
      async read(offset, lengthBytes, { signal } = {}) {
        signal?.throwIfAborted();
        requireRange(offset, lengthBytes, size);
        const bytes = new Uint8Array(lengthBytes);
        let done = 0;
        while (done < lengthBytes) {
          const { bytesRead } = await file.read(bytes, done, lengthBytes - done, offset + done);
          if (bytesRead === 0) throw new RangeError(`${path} was cut short while it was read`);
          done += bytesRead;
        }
        return bytes;
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
