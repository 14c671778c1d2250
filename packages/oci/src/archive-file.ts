import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, errnoOf, isDecantError, quote, Scope, toDecantError } from '@decant/core';

import { ArchiveIndex } from './archive-index.ts';
import type { ReadOptions } from './blob-source.ts';
import { detectCompression } from './decompress.ts';
import type { OciLimits } from './limits.ts';
import { readPlainArchive } from './plain-archive.ts';

export interface OpenArchiveFileOptions extends ReadOptions {
  /** Takes the plain archive while one that is compressed as a whole is open; without it such a one is refused. */
  readonly scratchDirectory?: string | undefined;
}

/** The members of a tar file; whoever has the index keeps the file open until it is disposed. */
export interface ArchiveFile extends AsyncDisposable {
  readonly index: ArchiveIndex;
}

/** Opens a tar file and reads its headers. @throws OCI_SOURCE_INVALID, OCI_UNSUPPORTED, LIMIT_EXCEEDED, DISK_FULL */
export async function openArchiveFile(
  path: string,
  limits: OciLimits,
  options: OpenArchiveFileOptions,
): Promise<ArchiveFile> {
  const { signal } = options;
  await using scope = new Scope();
  let file = await openFile(path);
  scope.defer(() => file.close());
  const start = Buffer.alloc(4);
  await file.read(start, 0, 4, 0);
  const compression = detectCompression(start);
  if (compression !== 'none') {
    if (options.scratchDirectory === undefined) {
      throw new DecantError('OCI_UNSUPPORTED', `${quote(path)} is compressed with ${compression} as a whole.`, {
        hint: `Decompress it first (${compression} -d); its data must be readable at any place.`,
      });
    }
    const plain = join(options.scratchDirectory, `archive-${randomUUID()}.tar`);
    scope.defer(() => rm(plain, { force: true }));
    const compressed = file;
    file = await unpack(path, plain, limits, signal);
    await compressed.close();
  }
  const index = await buildIndex(file, path, limits, signal);
  const kept = scope.move();
  return { index, [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose]() };
}

async function openFile(path: string): Promise<FileHandle> {
  let file: FileHandle;
  try {
    // Not waiting: opening a FIFO would, for whoever writes to it.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new DecantError('OCI_SOURCE_INVALID', `${quote(path)} cannot be read: ${errnoOf(error) ?? String(error)}.`, {
      cause: error,
    });
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new DecantError('OCI_SOURCE_INVALID', `${quote(path)} is not a file.`, {
    hint: 'A directory with an oci-layout file is opened as an OCI layout.',
  });
}

/** Writes the plain bytes of a compressed archive to a file, which stays open. */
async function unpack(
  path: string,
  target: string,
  limits: OciLimits,
  signal: AbortSignal | undefined,
): Promise<FileHandle> {
  const file = await open(target, 'wx+', 0o600);
  try {
    for await (const piece of readPlainArchive(path, { limits, signal })) {
      for (let done = 0; done < piece.length;) done += (await file.write(piece, done)).bytesWritten;
    }
    return file;
  } catch (error) {
    await file.close();
    signal?.throwIfAborted();
    throw notAnArchive(path, toDecantError(error));
  }
}

async function buildIndex(
  file: FileHandle,
  path: string,
  limits: OciLimits,
  signal: AbortSignal | undefined,
): Promise<ArchiveIndex> {
  try {
    return await ArchiveIndex.build(file, (await file.stat()).size, limits, signal);
  } catch (error) {
    throw isDecantError(error) ? notAnArchive(path, error) : error;
  }
}

function notAnArchive(path: string, error: DecantError): DecantError {
  if (error.code !== 'LAYER_INVALID') return error;
  return new DecantError('OCI_SOURCE_INVALID', `${quote(path)} is no tar archive that can be read. ${error.message}`, {
    details: error.details,
    cause: error,
  });
}
