import { toHex, type OnEvent } from '@decant/core';
import { createSHA256 } from 'hash-wasm';

import type { ContextEntry, PackedContext } from '../entry.ts';
import { gzip } from './gzip.ts';
import { tarBytesOf, tarStream, type ReadContent } from './tar-stream.ts';

/** A SHA-256 under way. */
export interface Sha256 {
  update(bytes: Uint8Array): unknown;
  digestHex(): string;
}

/** Makes the gzip form of bytes, with the header of {@link gzip}. It has done with a piece when it asks for the next. */
export type Compress = (source: AsyncIterable<Uint8Array<ArrayBuffer>>) => AsyncIterable<Uint8Array>;

export interface PackOptions {
  /** Compress the stream; the digest is of the uncompressed archive either way. Default false. */
  readonly gzip?: boolean | undefined;
  /** Told of progress in the stage `context`, at most about twenty times a second, and of each warning. */
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

const PROGRESS_MS = 50;

/** Packs entries that are sorted by the bytes of their paths, with their content from `readContent`. */
export function packEntries(
  entries: readonly ContextEntry[],
  readContent: ReadContent,
  options: PackOptions & { readonly sha256?: () => Sha256; readonly compress?: Compress | undefined } = {},
): PackedContext {
  const tarBytes = tarBytesOf(entries);
  const digest = Promise.withResolvers<string>();
  // A caller who only wants the bytes learns of a failure from the stream.
  digest.promise.catch(() => undefined);
  const tar = hashed(tarStream(entries, readContent, options.signal), tarBytes, digest, options);
  const compress = options.compress ?? gzip;
  return { stream: options.gzip === true ? compress(tar) : tar, digest: digest.promise, tarBytes };
}

async function* hashed(
  source: AsyncIterable<Uint8Array<ArrayBuffer>>,
  totalBytes: number,
  digest: PromiseWithResolvers<string>,
  options: PackOptions & { readonly sha256?: () => Sha256 },
): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  const { onEvent } = options;
  const started = performance.now();
  let reported = started;
  let bytes = 0;
  onEvent?.({ type: 'stage-started', stage: 'context', totalBytes });
  try {
    const hasher = options.sha256?.() ?? (await portableSha256());
    for await (const piece of source) {
      hasher.update(piece);
      bytes += piece.length;
      if (performance.now() - reported >= PROGRESS_MS) {
        reported = performance.now();
        onEvent?.({ type: 'stage-progress', stage: 'context', bytes, totalBytes });
      }
      yield piece;
    }
    digest.resolve(hasher.digestHex());
    onEvent?.({ type: 'stage-finished', stage: 'context', bytes, elapsedMs: Math.round(performance.now() - started) });
  } catch (error) {
    digest.reject(error);
    throw error;
  } finally {
    // Without effect after the end; a reader who leaves early must not leave the digest open for ever.
    digest.reject(new Error('The archive was not read to its end.'));
  }
}

/** SHA-256 in WebAssembly, where there is nothing faster. */
export async function portableSha256(): Promise<Sha256> {
  const hasher = await createSHA256();
  hasher.init();
  return { update: (bytes) => hasher.update(bytes), digestHex: () => toHex(hasher.digest('binary')) };
}
