import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';

import { tooLarge, type BlobSource, type ReadOptions } from './blob-source.ts';
import { digestHex } from './digest.ts';
import { readRange } from './file-range.ts';
import type { OciImage, OpenImageOptions } from './image.ts';
import { treeFromIndex, type ImageTree } from './image-tree.ts';
import { DEFAULT_OCI_LIMITS } from './limits.ts';
import { checkLayoutFile, openFromIndex } from './open-image.ts';

/**
 * Opens an image in an OCI image layout, a directory with `oci-layout`, `index.json` and `blobs/`. All
 * documents are read and checked now, layers when they are read.
 * @throws OCI_SOURCE_INVALID when the directory is no layout or holds several images and no tag says which,
 * OCI_PLATFORM_MISSING, OCI_INVALID, OCI_DIGEST_MISMATCH, OCI_UNSUPPORTED, LIMIT_EXCEEDED.
 */
export async function openOciLayout(directory: string, options: OpenImageOptions = {}): Promise<OciImage> {
  const limits = { ...DEFAULT_OCI_LIMITS, ...options.limits };
  options.signal?.throwIfAborted();
  checkLayoutFile(await readSmall(directory, 'oci-layout', limits.documentBytes));
  const index = await readSmall(directory, 'index.json', limits.documentBytes);
  return openFromIndex(directorySource(directory), index, limits, options, () => Promise.resolve());
}

/**
 * All that a name in an OCI image layout stands for, to be copied as it is.
 * @throws as {@link openOciLayout}
 */
export async function openOciLayoutTree(
  directory: string,
  options: Omit<OpenImageOptions, 'platform'> = {},
): Promise<ImageTree> {
  const limits = { ...DEFAULT_OCI_LIMITS, ...options.limits };
  options.signal?.throwIfAborted();
  checkLayoutFile(await readSmall(directory, 'oci-layout', limits.documentBytes));
  const index = await readSmall(directory, 'index.json', limits.documentBytes);
  return treeFromIndex(directorySource(directory), index, limits, options, () => Promise.resolve());
}

async function readSmall(directory: string, name: string, limitBytes: number): Promise<Uint8Array> {
  const path = join(directory, name);
  const sizeBytes = await fileSize(path);
  if (sizeBytes === undefined) {
    throw new DecantError('OCI_SOURCE_INVALID', `${quote(directory)} is no OCI image layout: it has no file ${name}.`, {
      hint: 'Give the directory that holds oci-layout and index.json.',
    });
  }
  if (sizeBytes > limitBytes) throw tooLarge(`The file ${name}`, sizeBytes, limitBytes);
  const pieces: Uint8Array[] = [];
  for await (const piece of readFileFrom(path, sizeBytes)) pieces.push(piece);
  return Buffer.concat(pieces);
}

function directorySource(directory: string): BlobSource {
  const pathOf = (digest: string) => join(directory, 'blobs', 'sha256', digestHex(digest));
  return {
    sizeOf: ({ digest }) => fileSize(pathOf(digest)),
    async *read({ digest }, options = {}) {
      const path = pathOf(digest);
      const sizeBytes = await fileSize(path);
      if (sizeBytes === undefined) throw new DecantError('OCI_INVALID', `There is no blob ${digest} any more.`);
      yield* readFileFrom(path, sizeBytes, options);
    },
  };
}

/** Bytes of a regular file; undefined when there is none. Anything else, a FIFO say, could block its reader. */
async function fileSize(path: string): Promise<number | undefined> {
  try {
    const facts = await stat(path);
    if (facts.isFile()) return facts.size;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
    throw unreadable(path, error);
  }
  throw new DecantError('OCI_SOURCE_INVALID', `${quote(path)} is not a regular file.`);
}

async function* readFileFrom(path: string, sizeBytes: number, options?: ReadOptions): AsyncGenerator<Uint8Array> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    yield* readRange(file, 0, sizeBytes, options);
  } finally {
    await file.close();
  }
}

function unreadable(path: string, error: unknown): DecantError {
  return new DecantError('OCI_SOURCE_INVALID', `${quote(path)} cannot be read: ${errnoOf(error) ?? String(error)}.`, {
    cause: error,
  });
}
