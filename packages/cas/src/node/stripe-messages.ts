import { DecantError, isErrorCode, PAGE_BYTES, toDecantError } from '@decant/core';

import { viewOf } from '../bytes/bytes-reader.ts';
import { HOLE_FLAG, MANIFEST_ENTRY_BYTES } from '../manifest/manifest-layout.ts';
import type { WrittenPack } from './pack-writer.ts';

/** What a worker does with chunks that are new. */
export interface StripeStoring {
  /** Where it writes packs. */
  readonly directory: string;
  /** zstd level, or undefined for raw. */
  readonly level: number | undefined;
  readonly fsync: boolean;
  /** Memory of the {@link SharedIdSet} of all chunks that need not be stored. */
  readonly known: SharedArrayBuffer;
}

/** What a worker is started with. */
export interface StripeWorkerData {
  readonly file: string;
  readonly sizeBytes: number;
  readonly worker: number;
  /** Undefined when only ids are wanted. */
  readonly storing: StripeStoring | undefined;
}

export type ToStripeWorker = { readonly type: 'scan'; readonly stripe: number } | { readonly type: 'finish' };

export interface StripeResult {
  readonly stripe: number;
  /** One manifest entry of 40 bytes for each stretch, in order. */
  readonly entries: Uint8Array<ArrayBuffer>;
  /** Chunks that this worker was the first to meet, their plain bytes and their bytes as stored. */
  readonly newChunks: number;
  readonly newBytes: number;
  readonly storedBytes: number;
}

export interface SentError {
  readonly code: string;
  readonly message: string;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;
  readonly stack: string | undefined;
}

export type FromStripeWorker =
  | { readonly type: 'scanned'; readonly result: StripeResult }
  | { readonly type: 'finished'; readonly packs: readonly WrittenPack[] }
  | { readonly type: 'failed'; readonly error: SentError };

/** A stretch of a result: a chunk with its 32-byte digest, in place, or a hole. */
export type SentStretch =
  | { readonly type: 'chunk'; readonly digest: Uint8Array; readonly lengthBytes: number }
  | { readonly type: 'hole'; readonly lengthBytes: number };

export function* stretchesOf(entries: Uint8Array): Generator<SentStretch, void, undefined> {
  const view = viewOf(entries);
  for (let at = 0; at < entries.length; at += MANIFEST_ENTRY_BYTES) {
    const lengthBytes = view.getUint32(at + 32, true) * PAGE_BYTES;
    if (view.getUint32(at + 36, true) === HOLE_FLAG) yield { type: 'hole', lengthBytes };
    else yield { type: 'chunk', digest: entries.subarray(at, at + 32), lengthBytes };
  }
}

export function sendableError(thrown: unknown): SentError {
  const { code, message, hint, details, stack } = toDecantError(thrown);
  return { code, message, hint, details, stack };
}

export function receivedError(sent: SentError): DecantError {
  const cause = new Error(sent.message);
  if (sent.stack !== undefined) cause.stack = sent.stack;
  return new DecantError(isErrorCode(sent.code) ? sent.code : 'INTERNAL', sent.message, {
    hint: sent.hint,
    details: sent.details,
    cause,
  });
}
