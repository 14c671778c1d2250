import { open } from 'node:fs/promises';

import type { RandomAccess } from '@decant/cas';

export async function fileAccess(path: string): Promise<RandomAccess & AsyncDisposable> {
  const file = await open(path, 'r');
  const { size } = await file.stat();
  return {
    sizeBytes: size,
    read: async (offset, lengthBytes) => {
      const bytes = new Uint8Array(lengthBytes);
      const { bytesRead } = await file.read(bytes, 0, lengthBytes, offset);
      if (bytesRead !== lengthBytes) throw new RangeError('out of range');
      return bytes;
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}
