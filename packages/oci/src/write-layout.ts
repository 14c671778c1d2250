import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

import { DecantError, errnoOf, MIB, quote, Scope, Semaphore, toDecantError, type OnEvent } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';
import { digestHex } from './digest.ts';
import type { OciImage } from './image.ts';
import type { ImageTree } from './image-tree.ts';
import { OCI_INDEX } from './media-types.ts';
import { storedImage, type StoredBlob, type StoredDocument } from './stored-image.ts';

const PROGRESS_BYTES = 4 * MIB;

export interface WriteLayoutOptions extends ReadOptions {
  /** Blobs read at a time; default 4. */
  readonly parallel?: number | undefined;
  /** Told of the bytes written, as progress of the stage `fetch`. */
  readonly onEvent?: OnEvent | undefined;
}

/**
 * Writes an image, or an index with all it names, as an OCI layout into a directory that is missing or empty. It is
 * complete or not there. @throws USAGE when the directory holds something, OCI_DIGEST_MISMATCH, DISK_FULL.
 */
export async function writeOciLayout(
  image: OciImage | ImageTree,
  directory: string,
  options: WriteLayoutOptions = {},
): Promise<{ readonly digest: string; readonly sizeBytes: number }> {
  const target = resolve(directory);
  await expectEmpty(target, directory);
  const { top, inner, blobs } = storedImage(image);
  await using scope = new Scope();
  const temporary = join(dirname(target), `.${basename(target)}-${randomUUID()}`);
  try {
    await mkdir(join(temporary, 'blobs', 'sha256'), { recursive: true }).catch((error: unknown) => {
      throw notWritable(directory, error);
    });
    scope.defer(() => rm(temporary, { recursive: true, force: true }));
    const pathOf = (digest: string) => join(temporary, 'blobs', 'sha256', digestHex(digest));
    await writeBlobs(blobs, pathOf, options);
    for (const document of [...inner, top]) await writeFile(pathOf(document.digest), document.bytes);
    await writeFile(join(temporary, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}\n');
    await writeFile(join(temporary, 'index.json'), `${JSON.stringify(indexOf(image, top))}\n`);
    await rename(temporary, target);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (errnoOf(error) === 'ENOTEMPTY' || errnoOf(error) === 'EEXIST') throw notEmpty(directory);
    throw toDecantError(error);
  }
  return { digest: top.digest, sizeBytes: blobs.reduce((total, blob) => total + blob.sizeBytes, 0) };
}

function notWritable(directory: string, error: unknown): unknown {
  const errno = errnoOf(error) ?? '';
  if (!['ENOTDIR', 'EACCES', 'EPERM', 'EROFS', 'ELOOP', 'ENAMETOOLONG'].includes(errno)) return error;
  return new DecantError('USAGE', `${quote(directory)} cannot be made: ${errno}.`, {
    hint: 'Give a directory in a place that you may write to.',
    cause: error,
  });
}

async function writeBlobs(
  blobs: readonly StoredBlob[],
  pathOf: (digest: string) => string,
  { parallel = 4, onEvent, signal }: WriteLayoutOptions,
): Promise<void> {
  const slots = new Semaphore(parallel);
  const failed = new AbortController();
  const both = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  const totalBytes = blobs.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  let bytes = 0;
  let reported = 0;
  const write = async (blob: StoredBlob) => {
    try {
      await writeBlob(pathOf(blob.digest), blob.read({ signal: both }), (written) => {
        bytes += written;
        if (bytes - reported < PROGRESS_BYTES && bytes < totalBytes) return;
        reported = bytes;
        onEvent?.({ type: 'stage-progress', stage: 'fetch', bytes, totalBytes });
      });
    } catch (error) {
      // The others need not go on; the first failure is the one to tell.
      failed.abort(error);
      throw error;
    }
  };
  await Promise.allSettled(blobs.map((blob) => slots.run(() => write(blob), both)));
  both.throwIfAborted();
}

function indexOf(image: OciImage | ImageTree, { mediaType, digest, bytes }: StoredDocument): unknown {
  const [name] = image.tags;
  // The whole name where containerd keeps it, the tag where the specification has it.
  const tag = name === undefined ? undefined : (/:([^:/]+)$/.exec(name)?.[1] ?? name);
  const annotations =
    name === undefined
      ? {}
      : { annotations: { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': tag } };
  const descriptor = { mediaType, digest, size: bytes.length, ...platformOf(image), ...annotations };
  return { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [descriptor] };
}

function platformOf(image: OciImage | ImageTree): { platform?: Record<string, string> } {
  if (!('platform' in image)) return {};
  const { os, architecture, variant } = image.platform;
  return { platform: { architecture, os, ...(variant === undefined ? {} : { variant }) } };
}

async function writeBlob(
  path: string,
  bytes: AsyncIterable<Uint8Array>,
  onWritten: (bytes: number) => void,
): Promise<void> {
  const file = await open(path, 'wx');
  try {
    for await (const piece of bytes) {
      for (let done = 0; done < piece.length;) done += (await file.write(piece, done)).bytesWritten;
      onWritten(piece.length);
    }
  } finally {
    await file.close();
  }
}

async function expectEmpty(target: string, shown: string): Promise<void> {
  try {
    if ((await readdir(target)).length > 0) throw notEmpty(shown);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') return;
    if (errno === 'ENOTDIR') {
      throw new DecantError('USAGE', `${quote(shown)} is not a directory.`, { hint: 'Name a new directory.' });
    }
    throw notWritable(shown, error);
  }
}

function notEmpty(shown: string): DecantError {
  return new DecantError('USAGE', `The directory ${quote(shown)} is not empty.`, { hint: 'Name a new directory.' });
}
