import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

import { DecantError, errnoOf, formatBytes, quote } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';
import { decompress, detectCompression } from './decompress.ts';
import { readRange } from './file-range.ts';
import { DEFAULT_OCI_LIMITS, limitError, RATIO_FLOOR_BYTES, type OciLimits } from './limits.ts';

/**
 * The plain bytes of a tar archive in a file, which may be compressed with gzip or zstd.
 * @throws OCI_SOURCE_INVALID when the file cannot be read or is empty, LAYER_INVALID for broken compression, LIMIT_EXCEEDED
 * when it unpacks to more than the limits allow.
 */
export async function* readPlainArchive(
  path: string,
  options: ReadOptions & { readonly limits?: Partial<OciLimits> | undefined } = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const { lend, signal } = options;
  const limits = { ...DEFAULT_OCI_LIMITS, ...options.limits };
  const file = await openRegular(path);
  try {
    const { size } = await file.stat();
    const start = Buffer.alloc(4);
    await file.read(start, 0, 4, 0);
    const { layerBytes, layerRatio, zstdWindowBytes } = limits;
    const cap = Math.min(layerBytes, Math.max(RATIO_FLOOR_BYTES, layerRatio * size));
    let total = 0;
    for await (const piece of decompress(readRange(file, 0, size, { lend, signal }), detectCompression(start), {
      zstdWindowBytes,
      lend,
      signal,
    })) {
      total += piece.length;
      if (total > cap) {
        throw limitError(
          `${quote(path)} unpacks to more than ${formatBytes(cap)}.`,
          cap === layerBytes ? { name: 'layerBytes', value: layerBytes } : { name: 'layerRatio', value: layerRatio },
        );
      }
      yield piece;
    }
    // Archives of nothing have blocks of zeros; a file without a byte is one that nobody wrote to.
    if (total === 0) {
      throw new DecantError('OCI_SOURCE_INVALID', `${quote(path)} is empty: it is no tar archive.`, {
        hint: 'Check that what was to write it has not failed.',
      });
    }
  } finally {
    await file.close();
  }
}

async function openRegular(path: string) {
  // Not waiting: opening a FIFO would, for whoever writes to it.

  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: unknown) => {
    throw new DecantError('OCI_SOURCE_INVALID', `${quote(path)} cannot be read: ${errnoOf(error) ?? String(error)}.`, {
      cause: error,
    });
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new DecantError('OCI_SOURCE_INVALID', `${quote(path)} is not a file.`);
}
