import { randomBytes } from 'node:crypto';
import { access, constants, open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';

import { createImageReader, type Manifest, type RandomAccess } from '@decant/cas';
import {
  DecantError,
  errnoOf,
  isStreamingImageId,
  PAGE_BYTES,
  parseImageId,
  quote,
  stage,
  toDecantError,
  type OnEvent,
} from '@decant/core';
import { writeAt } from '@decant/core/node';

import { readArchive } from './image-archive.ts';
import { inspectImage } from './image-names.ts';
import { openStreamingSource } from './image-source.ts';
import type { Session, WorkOptions } from './session.ts';

export interface ExportRequest {
  readonly ref: string;
  /** Replaced when it exists; it appears whole or not at all. */
  readonly file: string;
  /** Leave holes where the image has holes. */
  readonly sparse: boolean;
}

const WINDOW_BYTES = 8 * 1024 * 1024;

export async function exportImage(
  session: Session,
  request: ExportRequest,
  { onEvent, signal }: WorkOptions,
): Promise<{ readonly bytes: number; readonly contentBytes: number }> {
  const detail = await inspectImage(session, request.ref, { signal });
  const { id, virtualBytes, contentBytes } = detail.image;
  await checkTarget(request.file);
  const partial = `${request.file}.${randomBytes(6).toString('hex')}.partial`;
  return stage(onEvent, 'export', async (finish) => {
    try {
      if (isStreamingImageId(parseImageId(id))) {
        const { manifest, source, cache } = await openStreamingSource(session, id, signal);
        const reader = createImageReader(manifest, source, { hash: await session.hash(), codec: session.codec, cache });
        await using file = await open(partial, 'wx', 0o666);
        await writeImage(file, manifest, reader, { sparse: request.sparse, onEvent, signal });
      } else {
        await readArchive(session, detail, { file: partial, sparse: request.sparse, stage: 'export', onEvent, signal });
      }
      await rename(partial, request.file);
    } catch (error) {
      await rm(partial, { force: true });
      signal?.throwIfAborted();
      throw toDecantError(error);
    }
    finish({ bytes: virtualBytes });
    return { bytes: virtualBytes, contentBytes };
  });
}

async function checkTarget(file: string): Promise<void> {
  if (file === '' || file.endsWith('/')) {
    throw new DecantError('USAGE', `Not the name of a file: ${quote(file)}.`, { hint: 'Give the name of a new file.' });
  }
  const info = await stat(file).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw notWritable(file, error);
  });
  if (info !== undefined && !info.isFile()) {
    throw new DecantError('USAGE', `${file} exists and is not a regular file.`, {
      hint: 'Give the name of a new file.',
    });
  }
  // It is written beside its place first.
  await access(dirname(file), constants.W_OK).catch((error: unknown) => {
    throw notWritable(file, error);
  });
}

function notWritable(file: string, error: unknown): DecantError {
  return new DecantError('USAGE', `${file} cannot be written: ${errnoOf(error) ?? 'unknown'}.`, {
    hint: 'Give a file in a directory that exists and that you may write to.',
    cause: error,
  });
}

async function writeImage(
  file: FileHandle,
  manifest: Manifest,
  image: RandomAccess,
  options: {
    readonly sparse: boolean;
    readonly onEvent: OnEvent | undefined;
    readonly signal: AbortSignal | undefined;
  },
): Promise<void> {
  const { sparse, onEvent, signal } = options;
  const { virtualBytes } = manifest;
  await file.truncate(virtualBytes);
  const write = async (offset: number, lengthBytes: number) => {
    for (let at = offset; at < offset + lengthBytes; at += WINDOW_BYTES) {
      const bytes = await image.read(at, Math.min(WINDOW_BYTES, offset + lengthBytes - at), { signal });
      await writeAt(file, bytes, at);
      onEvent?.({ type: 'stage-progress', stage: 'export', bytes: at + bytes.length, totalBytes: virtualBytes });
    }
  };
  // Stretches of content are written in long runs; a hole is left out or, for every byte, written as zeros.
  let runStart = 0;
  let runEnd = 0;
  for (let i = 0; i < manifest.entryCount; i++) {
    const { id, firstPage, pages } = manifest.entry(i);
    const start = firstPage * PAGE_BYTES;
    if (sparse && id === null) {
      await write(runStart, runEnd - runStart);
      runStart = start + pages * PAGE_BYTES;
    }
    runEnd = start + pages * PAGE_BYTES;
    if (runEnd - runStart >= WINDOW_BYTES) {
      await write(runStart, runEnd - runStart);
      runStart = runEnd;
    }
  }
  await write(runStart, runEnd - runStart);
  await file.sync();
}
