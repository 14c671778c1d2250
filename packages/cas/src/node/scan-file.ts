import { access, constants, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';

import { DecantError, quote, toHex, type ChunkId, type OnEvent } from '@decant/core';

import { stretchesOf } from './stripe-messages.ts';
import { StripePool, type StripePoolOptions } from './stripe-pool.ts';

export interface ScanOptions {
  /** Worker threads, 1 to 64; default: as many as the processor runs at once, at most 8. */
  readonly workers?: number | undefined;
  /** Progress in bytes of the file, as stage `layout`. */
  readonly onEvent?: OnEvent | undefined;
  /** Where a bundler has put `@decant/cas`'s `stripe-worker.js`; default: beside the module that holds this function. */
  readonly workerUrl?: URL | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A stretch of an image without its bytes. */
export type ScannedStretch =
  | { readonly type: 'chunk'; readonly id: ChunkId; readonly lengthBytes: number }
  | { readonly type: 'hole'; readonly lengthBytes: number };

/**
 * Chunks and holes of a raw disk image in a regular file, by the rules for foreign images, on worker threads. Adjoining
 * holes may come in pieces; otherwise the result is that of `chunkImage`, whatever the number of workers. The threads
 * stay at most 128 MiB of the file per worker ahead of the consumer, and end with the iteration, also when it is left early.
 * @throws CAS_FILE_UNREADABLE, CAS_FILE_CHANGED, CAS_WORKER_FAILED.
 */
export async function* scanFile(file: string, options: ScanOptions = {}): AsyncGenerator<ScannedStretch, void> {
  const facts = await fileFacts(file);
  await using pool = new StripePool(poolOptions(file, facts.sizeBytes, options));
  for await (const { entries } of pool.results()) {
    for (const stretch of stretchesOf(entries)) {
      const { type, lengthBytes } = stretch;
      yield type === 'hole' ? { type, lengthBytes } : { type, id: toHex(stretch.digest) as ChunkId, lengthBytes };
    }
  }
  await pool.finish();
  await requireUnchanged(file, facts);
}

export function poolOptions(file: string, sizeBytes: number, options: ScanOptions): StripePoolOptions {
  const { workers = Math.min(8, availableParallelism()), onEvent, workerUrl, signal } = options;
  if (!Number.isInteger(workers) || workers < 1 || workers > 64) throw new RangeError('1 to 64 workers are possible');
  let bytes = 0;
  return {
    file,
    sizeBytes,
    workers,
    workerUrl,
    signal,
    onScanned: ({ entries }) => {
      if (onEvent === undefined) return;
      for (const { lengthBytes } of stretchesOf(entries)) bytes += lengthBytes;
      onEvent({ type: 'stage-progress', stage: 'layout', bytes, totalBytes: sizeBytes });
    },
  };
}

export interface FileFacts {
  readonly sizeBytes: number;
  readonly mtimeMs: number;
  readonly ino: number;
}

/** @throws CAS_FILE_UNREADABLE when it is missing, may not be read or is no regular file. */
export async function fileFacts(file: string): Promise<FileFacts> {
  const unreadable = (cause: unknown): never => {
    throw new DecantError('CAS_FILE_UNREADABLE', `${quote(file)} cannot be read.`, { cause, details: { file } });
  };
  const found = await stat(file).catch(unreadable);
  if (!found.isFile()) {
    throw new DecantError('CAS_FILE_UNREADABLE', `${quote(file)} is not a regular file.`, { details: { file } });
  }
  await access(file, constants.R_OK).catch(unreadable);
  return { sizeBytes: found.size, mtimeMs: found.mtimeMs, ino: found.ino };
}

/** @throws CAS_FILE_CHANGED when the file is not what it was: then its chunks are of no one moment. */
export async function requireUnchanged(file: string, before: FileFacts): Promise<void> {
  const now = await fileFacts(file);
  if (now.sizeBytes === before.sizeBytes && now.mtimeMs === before.mtimeMs && now.ino === before.ino) return;
  throw new DecantError('CAS_FILE_CHANGED', `${quote(file)} changed while it was read.`, {
    hint: 'Make sure that nothing writes to the image, then try again.',
    details: { file },
  });
}
