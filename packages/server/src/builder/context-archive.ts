import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { posix } from 'node:path';
import { createGunzip } from 'node:zlib';

import { DecantError, formatBytes, isDecantError, MIB, quote } from '@decant/core';
import { readTar, showBytes, type TarEntry } from '@decant/oci';

export interface ContextArchiveLimits {
  readonly contextFiles: number;
  readonly unpackedBytes: number;
}

export interface ContextFacts {
  readonly entries: number;
  readonly unpackedBytes: number;
  /** The Dockerfile as it stands in the archive. */
  readonly dockerfile: Uint8Array;
}

/** Most bytes of a Dockerfile in a context. */
const MAX_DOCKERFILE_BYTES = 4 * MIB;
const MAX_LINKS = 10;

interface Place {
  readonly dataOffset: number;
  readonly sizeBytes: number;
  readonly type: TarEntry['type'];
  readonly linkPath: string;
}

/**
 * Reads a context's archive once from end to end: that it is whole, holds only what a context can hold, and where its
 * Dockerfile lies. Archives of all clients are taken: with and without `./`, with blank owners, with links and PAX.
 * @throws BUILD_CONTEXT_INVALID naming the entry, BUILD_CONTEXT_FILES, BUILD_UNPACKED_BYTES, DOCKERFILE_UNREADABLE.
 */
export async function inspectContext(
  file: string,
  dockerfilePath: string | undefined,
  limits: ContextArchiveLimits,
  signal?: AbortSignal,
): Promise<ContextFacts> {
  const places = new Map<string, Place>();
  const counter = { bytes: 0 };
  let entries = 0;
  try {
    for await (const entry of readTar(counted(await unpacked(file), counter, limits.unpackedBytes), { signal })) {
      entries++;
      if (entries > limits.contextFiles) {
        throw new DecantError(
          'BUILD_CONTEXT_FILES',
          `The build context has more than ${limits.contextFiles} entries.`,
          {
            hint: 'Exclude what the build does not need in a .dockerignore file.',
            details: { limit: limits.contextFiles },
          },
        );
      }
      const path = checkedPath(entry);
      const { dataOffset, sizeBytes, type, linkPath } = entry;
      if (type !== 'directory') places.set(path, { dataOffset, sizeBytes, type, linkPath });
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw contextError(error);
  }
  const dockerfile =
    dockerfilePath === undefined ? new Uint8Array() : await readDockerfile(file, dockerfilePath, places, signal);
  return { entries, unpackedBytes: counter.bytes, dockerfile };
}

/** The archive's bytes, decompressed when they are compressed by gzip. */
async function unpacked(file: string): Promise<AsyncIterable<Uint8Array>> {
  await using handle = await open(file);
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0);
  const source = createReadStream(file);
  if (bytesRead < 2 || buffer[0] !== 0x1f || buffer[1] !== 0x8b) return source;
  const gunzip = createGunzip();
  source.once('error', (error) => gunzip.destroy(error));
  return source.pipe(gunzip);
}

async function* counted(
  source: AsyncIterable<Uint8Array>,
  counter: { bytes: number },
  limit: number,
): AsyncGenerator<Uint8Array, void> {
  for await (const piece of source) {
    counter.bytes += piece.length;
    if (counter.bytes > limit) {
      throw new DecantError('BUILD_UNPACKED_BYTES', `The build context unpacks to more than ${formatBytes(limit)}.`, {
        details: { limit },
      });
    }
    yield piece;
  }
}

/** The path without `./` and slashes at the end. @throws BUILD_CONTEXT_INVALID for what leads out, or is a device. */
function checkedPath(entry: TarEntry): string {
  const parts = entry.path.split('/').filter((part) => part !== '' && part !== '.');
  const refuse = (why: string) =>
    new DecantError('BUILD_CONTEXT_INVALID', `The entry ${showBytes(entry.path)} of the build context ${why}.`);
  if (entry.path.startsWith('/') || parts.includes('..')) throw refuse('leads out of it');
  if (!['file', 'directory', 'symlink', 'hardlink'].includes(entry.type)) throw refuse(`is a ${entry.type}`);
  if (entry.type === 'hardlink' && (entry.linkPath.startsWith('/') || entry.linkPath.split('/').includes('..'))) {
    throw refuse('is a hard link that leads out of it');
  }
  return parts.join('/');
}

async function readDockerfile(
  file: string,
  path: string,
  places: ReadonlyMap<string, Place>,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const place = follow(Buffer.from(path, 'utf8').toString('latin1'), places);
  if (place === undefined) {
    throw new DecantError('DOCKERFILE_UNREADABLE', `The build context has no file ${quote(path)}.`, {
      hint: 'Name the Dockerfile relative to the context, and check that no ignore rule leaves it out.',
    });
  }
  if (place.sizeBytes > MAX_DOCKERFILE_BYTES) {
    throw new DecantError('DOCKERFILE_INVALID', `The Dockerfile has more than ${formatBytes(MAX_DOCKERFILE_BYTES)}.`);
  }
  const bytes = new Uint8Array(place.sizeBytes);
  let at = 0;
  for await (const piece of await unpacked(file)) {
    signal?.throwIfAborted();
    const from = Math.max(0, place.dataOffset - at);
    if (from < piece.length) {
      const into = Math.max(0, at - place.dataOffset);
      bytes.set(piece.subarray(from, from + place.sizeBytes - into), into);
    }
    at += piece.length;
    if (at >= place.dataOffset + place.sizeBytes) break;
  }
  return bytes;
}

/** The regular file that a path means, links followed inside the context. */
function follow(path: string, places: ReadonlyMap<string, Place>): Place | undefined {
  let name = posix.normalize(path);
  for (let i = 0; i < MAX_LINKS; i++) {
    const place = places.get(name.replace(/^\.\//, ''));
    if (place === undefined || place.type === 'file') return place;
    name =
      place.type === 'hardlink' ? posix.normalize(place.linkPath) : posix.join(posix.dirname(name), place.linkPath);
  }
  return undefined;
}

function contextError(error: unknown): unknown {
  if (isDecantError(error) && error.code !== 'LAYER_INVALID') return error;
  const why = error instanceof Error ? error.message : String(error);
  return new DecantError('BUILD_CONTEXT_INVALID', `The build context is no archive that can be read: ${why}`, {
    cause: error,
  });
}
