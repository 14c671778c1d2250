import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

import { DecantError, errnoOf, quote, Scope, toDecantError } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';
import { digestHex } from './digest.ts';
import type { OciImage } from './image.ts';
import { OCI_INDEX } from './media-types.ts';
import { storedImage } from './stored-image.ts';

/**
 * Writes an image as an OCI layout into a directory that is missing or empty. It is complete or not there.
 * @throws USAGE when the directory holds something, OCI_DIGEST_MISMATCH, DISK_FULL.
 */
export async function writeOciLayout(
  image: OciImage,
  directory: string,
  options: ReadOptions = {},
): Promise<{ readonly digest: string; readonly sizeBytes: number }> {
  const target = resolve(directory);
  await expectEmpty(target, directory);
  const { manifest, blobs } = storedImage(image);
  await using scope = new Scope();
  const temporary = join(dirname(target), `.${basename(target)}-${randomUUID()}`);
  try {
    await mkdir(join(temporary, 'blobs', 'sha256'), { recursive: true });
    scope.defer(() => rm(temporary, { recursive: true, force: true }));
    const pathOf = (digest: string) => join(temporary, 'blobs', 'sha256', digestHex(digest));
    for (const blob of blobs) await writeBlob(pathOf(blob.digest), blob.read(options));
    await writeFile(pathOf(manifest.digest), manifest.bytes);
    await writeFile(join(temporary, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}\n');
    await writeFile(join(temporary, 'index.json'), `${JSON.stringify(indexOf(image, manifest))}\n`);
    await rename(temporary, target);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (errnoOf(error) === 'ENOTEMPTY' || errnoOf(error) === 'EEXIST') throw notEmpty(directory);
    throw toDecantError(error);
  }
  return { digest: manifest.digest, sizeBytes: blobs.reduce((total, blob) => total + blob.sizeBytes, 0) };
}

function indexOf(image: OciImage, manifest: ReturnType<typeof storedImage>['manifest']): unknown {
  const { mediaType, digest, bytes } = manifest;
  const [name] = image.tags;
  // The whole name where containerd keeps it, the tag where the specification has it.
  const tag = name === undefined ? undefined : (/:([^:/]+)$/.exec(name)?.[1] ?? name);
  const annotations =
    name === undefined
      ? {}
      : { annotations: { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': tag } };
  const { os, architecture, variant } = image.platform;
  const platform = { architecture, os, ...(variant === undefined ? {} : { variant }) };
  const descriptor = { mediaType, digest, size: bytes.length, platform, ...annotations };
  return { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [descriptor] };
}

async function writeBlob(path: string, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  const file = await open(path, 'wx');
  try {
    for await (const piece of bytes) {
      for (let done = 0; done < piece.length;) done += (await file.write(piece, done)).bytesWritten;
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
    if (errno === 'ENOTDIR') throw new DecantError('USAGE', `${quote(shown)} is not a directory.`);
    throw error;
  }
}

function notEmpty(shown: string): DecantError {
  return new DecantError('USAGE', `The directory ${quote(shown)} is not empty.`, { hint: 'Name a new directory.' });
}
