import { DecantError, formatBytes, isDecantError } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';
import { decompress, detectCompression, type Compression } from './decompress.ts';
import { checked, digestHex } from './digest.ts';
import { limitError, RATIO_FLOOR_BYTES, type OciLimits } from './limits.ts';

/** One layer of an image: a tar archive of changes. */
export interface LayerBlob {
  /** Digest of the bytes as stored. */
  readonly digest: string;
  /** Digest of the plain tar archive. */
  readonly diffId: string;
  readonly mediaType: string;
  /** Bytes as stored. */
  readonly sizeBytes: number;
  /**
   * The plain tar archive, decompressed. Stored size, stored digest and diff id are checked on the way; a
   * mismatch is thrown before the iteration ends, so whoever read to the end has read the right bytes.
   * @throws OCI_DIGEST_MISMATCH, LAYER_INVALID for broken compression, LIMIT_EXCEEDED for a layer that unpacks
   * to more than the limits allow.
   */
  open(options?: ReadOptions): AsyncIterable<Uint8Array>;
  /** The bytes as stored; size and digest are checked on the way. @throws OCI_DIGEST_MISMATCH */
  read(options?: ReadOptions): AsyncIterable<Uint8Array>;
}

/** Bytes that tell a compression. */
const MAGIC_BYTES = 4;

export interface LayerSource {
  readonly digest: string;
  readonly diffId: string;
  readonly mediaType: string;
  readonly compression: Compression;
  readonly sizeBytes: number;
  /** The bytes as stored. */
  read(options?: ReadOptions): AsyncIterable<Uint8Array>;
}

export function createLayer(source: LayerSource, limits: OciLimits): LayerBlob {
  const { digest, diffId, mediaType, sizeBytes } = source;
  digestHex(digest);
  digestHex(diffId);
  if (source.compression === 'none' && digest !== diffId) {
    throw new DecantError(
      'OCI_DIGEST_MISMATCH',
      `The plain layer ${digest} is declared to have the diff id ${diffId}.`,
      {
        details: { digest, diffId },
      },
    );
  }
  return {
    digest,
    diffId,
    mediaType,
    sizeBytes,
    open: (options = {}) => openLayer(source, limits, options),
    read: (options = {}) => storedBytes(source, options),
  };
}

function storedBytes(source: LayerSource, options: ReadOptions): AsyncIterable<Uint8Array> {
  const { digest, sizeBytes } = source;
  return checked(source.read(options), { digest, sizeBytes, what: `The layer ${digest}` });
}

async function* openLayer(
  source: LayerSource,
  limits: OciLimits,
  options: ReadOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { digest, diffId, sizeBytes, compression } = source;
  const stored = () => storedBytes(source, options);
  const capBytes = Math.min(limits.layerBytes, Math.max(RATIO_FLOOR_BYTES, limits.layerRatio * sizeBytes));
  if (compression === 'none') {
    if (sizeBytes > limits.layerBytes) throw tooMuch(digest, limits.layerBytes, limits);
    yield* stored();
    return;
  }
  const { lend, signal } = options;
  const plain = decompressAs(stored(), { zstdWindowBytes: limits.zstdWindowBytes, lend, signal });
  try {
    yield* checked(capped(plain, capBytes, { digest, limits }), {
      digest: diffId,
      what: `The unpacked layer ${digest}`,
    });
  } catch (error) {
    // Damage in the stored bytes mostly shows as broken compression first; the digest tells which it is.
    if (isDecantError(error, 'LAYER_INVALID')) await exhaust(stored());
    throw error;
  }
}

/**
 * Decompresses by how the bytes begin and not by what they are called: some builders write zstd under the media type
 * of gzip, or leave layers plain, and every engine takes them. The diff id tells in the end whether it was right.
 */
async function* decompressAs(
  stored: AsyncIterable<Uint8Array>,
  options: Parameters<typeof decompress>[2],
): AsyncGenerator<Uint8Array, void, undefined> {
  const pieces = stored[Symbol.asyncIterator]();
  const start: Uint8Array[] = [];
  try {
    let length = 0;
    while (length < MAGIC_BYTES) {
      const next = await pieces.next();
      if (next.done === true) break;
      // A copy, which `slice` of a Buffer is not.
      start.push(new Uint8Array(next.value));
      length += next.value.length;
    }
    async function* all(): AsyncGenerator<Uint8Array> {
      yield* start;
      yield* { [Symbol.asyncIterator]: () => pieces };
    }
    yield* decompress(all(), detectCompression(Buffer.concat(start)), options);
  } finally {
    await pieces.return?.();
  }
}

async function* capped(
  source: AsyncIterable<Uint8Array>,
  capBytes: number,
  { digest, limits }: { readonly digest: string; readonly limits: OciLimits },
): AsyncGenerator<Uint8Array> {
  let total = 0;
  for await (const piece of source) {
    total += piece.length;
    if (total > capBytes) throw tooMuch(digest, capBytes, limits);
    yield piece;
  }
}

async function exhaust(source: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const _ of source) continue;
}

function tooMuch(digest: string, capBytes: number, { layerBytes, layerRatio }: OciLimits): DecantError {
  const limit =
    capBytes === layerBytes ? { name: 'layerBytes', value: layerBytes } : { name: 'layerRatio', value: layerRatio };
  const why = capBytes === layerBytes ? '' : ` and to more than ${layerRatio} times its size`;
  return limitError(`The layer ${digest} unpacks to more than ${formatBytes(capBytes)}${why}.`, limit, { digest });
}
