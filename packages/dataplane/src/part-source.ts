import { openAsBlob } from 'node:fs';

import { DecantError, errnoOf, toDecantError } from '@decant/core';

/** Something to upload. A part may be asked for more than once: each time it must be the same bytes. */
export interface PartSource {
  readonly sizeBytes: number;
  /** The body of a part: `lengthBytes` bytes from `offset`. */
  part(offset: number, lengthBytes: number): PartBody | Promise<PartBody>;
}

export type PartBody = Blob | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;

/**
 * The bytes of a file, read as they are sent. A file that changes meanwhile fails the upload.
 * @throws NOT_FOUND when it cannot be opened.
 */
export async function filePartSource(path: string): Promise<PartSource> {
  let blob: Blob;
  try {
    blob = await openAsBlob(path);
  } catch (error) {
    // Node says it with an error of its own, not the system's.
    if (errnoOf(error) === 'ENOENT' || (error as { code?: unknown }).code === 'ERR_INVALID_ARG_VALUE') {
      throw new DecantError('NOT_FOUND', 'The file to upload is not there or cannot be opened.', {
        details: { path },
        cause: error,
      });
    }
    throw toDecantError(error);
  }
  return blobPartSource(blob);
}

/** Bytes in memory, or a blob. */
export function blobPartSource(source: Blob | Uint8Array<ArrayBuffer>): PartSource {
  if (source instanceof Uint8Array) {
    return { sizeBytes: source.length, part: (offset, length) => source.subarray(offset, offset + length) };
  }
  return { sizeBytes: source.size, part: (offset, length) => source.slice(offset, offset + length) };
}
