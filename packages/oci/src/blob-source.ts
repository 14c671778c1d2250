import { DecantError } from '@decant/core';

import { checked } from './digest.ts';
import { limitError } from './limits.ts';
import type { Descriptor } from './documents.ts';

export interface ReadOptions {
  /** The reader is done with each piece when it asks for the next: the memory may then be used again, or be given up. */
  readonly lend?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What names a blob. The media type tells a registry where to look for it. */
export type BlobName = Pick<Descriptor, 'digest' | 'size' | 'mediaType'>;

/** Where the blobs of an image lie. What it yields is not yet checked. */
export interface BlobSource {
  /** Bytes of a blob as stored, or as declared where only reading it tells; undefined when it is not there. */
  sizeOf(blob: BlobName): Promise<number | undefined>;
  read(blob: BlobName, options?: ReadOptions): AsyncIterable<Uint8Array>;
}

/** Reads a whole small blob and checks size and digest. */
export async function readChecked(
  source: BlobSource,
  descriptor: BlobName,
  what: string,
  limitBytes: number,
  options: ReadOptions = {},
): Promise<Uint8Array> {
  await expectBlob(source, descriptor, what);
  if (descriptor.size > limitBytes) throw tooLarge(what, descriptor.size, limitBytes);
  const pieces: Uint8Array[] = [];
  const expected = { digest: descriptor.digest, sizeBytes: descriptor.size, what };
  for await (const piece of checked(source.read(descriptor, options), expected)) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** @throws OCI_INVALID when the blob is missing, OCI_DIGEST_MISMATCH when its size is another one. */
export async function expectBlob(source: BlobSource, descriptor: BlobName, what: string): Promise<void> {
  const sizeBytes = await source.sizeOf(descriptor);
  if (sizeBytes === undefined) {
    throw new DecantError('OCI_INVALID', `${what} is missing: there is no blob ${descriptor.digest}.`, {
      details: { digest: descriptor.digest },
      hint: 'The image is incomplete; copy it again with all its blobs.',
    });
  }
  if (sizeBytes !== descriptor.size) {
    throw new DecantError(
      'OCI_DIGEST_MISMATCH',
      `${what} (${descriptor.digest}) has ${sizeBytes} bytes and ${descriptor.size} were declared.`,
      { details: { digest: descriptor.digest, sizeBytes, declaredBytes: descriptor.size } },
    );
  }
}

/** A document over `documentBytes`. */
export function tooLarge(what: string, sizeBytes: number, limitBytes: number): DecantError {
  const limit = { name: 'documentBytes', value: limitBytes };
  return limitError(`${what} has ${sizeBytes} bytes, the limit is ${limitBytes}.`, limit, { sizeBytes });
}
