import { DecantError, MIB, PAGE_BYTES, type ChunkId, type ChunkSource } from '@decant/core';

import { createMemoryChunkStore, type ChunkStore } from '../store/chunk-store.ts';
import type { ChunkCodec } from '../chunk/codec.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import type { Manifest } from '../manifest/manifest.ts';
import { openChunk } from '../chunk/open-chunk.ts';
import type { RandomAccess } from './random-access.ts';

/** Chunks a reader remembers. */
const REMEMBERED_BYTES = 8 * MIB;

export interface ImageReaderOptions {
  readonly hash: HashProvider;
  readonly codec: ChunkCodec;
  /**
   * Asked before the source, and given every chunk that was verified; one that fails to keep it does not fail the
   * read. It must verify what it reads back itself.
   */
  readonly cache?: ChunkStore | undefined;
}

/** One stretch of the answer that comes from a chunk. */
interface Part {
  readonly target: Uint8Array;
  /** First byte within the chunk. */
  readonly from: number;
}

/**
 * An image as one file: every chunk is verified before a byte of it is given, holes read as zeros. It remembers
 * the last 8 MiB of chunks.
 * `read` throws CAS_CHUNK_MISMATCH, CAS_ZSTD_INVALID, CAS_CHUNK_MISSING, and what the source throws.
 */
export function createImageReader(manifest: Manifest, source: ChunkSource, options: ImageReaderOptions): RandomAccess {
  const { hash, codec, cache } = options;
  const remembered = createMemoryChunkStore({ maxBytes: REMEMBERED_BYTES });

  return {
    sizeBytes: manifest.virtualBytes,
    async read(offset, lengthBytes, { signal } = {}) {
      signal?.throwIfAborted();
      requireRange(offset, lengthBytes, manifest.virtualBytes);
      const answer = new Uint8Array(lengthBytes);
      const missing = new Map<ChunkId, { plainBytes: number; parts: Part[] }>();
      for (const { id, plainBytes, part } of partsOf(manifest, offset, answer)) {
        const wanted = missing.get(id);
        if (wanted === undefined) missing.set(id, { plainBytes, parts: [part] });
        else wanted.parts.push(part);
      }
      for (const [id, { plainBytes, parts }] of missing) {
        let plain = await remembered.get(id, plainBytes);
        if (plain === undefined && cache !== undefined) {
          plain = await cache.get(id, plainBytes, { signal });
          if (plain !== undefined) await remembered.put(id, plain);
        }
        if (plain === undefined) continue;
        copyParts(plain, parts);
        missing.delete(id);
      }
      if (missing.size > 0) await fetchMissing(missing, signal);
      return answer;
    },
  };

  async function fetchMissing(
    missing: Map<ChunkId, { plainBytes: number; parts: Part[] }>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    for await (const frame of source.get([...missing.keys()], { signal })) {
      const wanted = missing.get(frame.id);
      if (wanted === undefined) continue;
      const plain = openChunk(frame, { id: frame.id, plainBytes: wanted.plainBytes }, { hash, codec });
      copyParts(plain, wanted.parts);
      missing.delete(frame.id);
      await remembered.put(frame.id, plain);
      try {
        await cache?.put(frame.id, plain, { signal });
      } catch {
        // A cache that cannot keep a chunk (a full disk) costs time, not the read.
        signal?.throwIfAborted();
      }
    }
    const [lost] = missing.keys();
    if (lost !== undefined) {
      throw new DecantError('CAS_CHUNK_MISSING', `The source did not give chunk ${lost}.`, {
        details: { chunk: lost },
      });
    }
  }
}

function* partsOf(
  manifest: Manifest,
  offset: number,
  answer: Uint8Array,
): Generator<{ id: ChunkId; plainBytes: number; part: Part }> {
  const end = offset + answer.length;
  if (offset === end) return;
  for (let i = manifest.find(Math.floor(offset / PAGE_BYTES)); i < manifest.entryCount; i++) {
    const { id, firstPage, pages } = manifest.entry(i);
    const start = firstPage * PAGE_BYTES;
    if (start >= end) return;
    if (id === null) continue;
    const plainBytes = pages * PAGE_BYTES;
    const first = Math.max(start, offset);
    const last = Math.min(start + plainBytes, end);
    yield { id, plainBytes, part: { target: answer.subarray(first - offset, last - offset), from: first - start } };
  }
}

function copyParts(plain: Uint8Array, parts: readonly Part[]): void {
  for (const { target, from } of parts) target.set(plain.subarray(from, from + target.length));
}

/** @throws RangeError when `[offset, offset + lengthBytes)` is not inside `[0, sizeBytes)`. */
export function requireRange(offset: number, lengthBytes: number, sizeBytes: number): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(lengthBytes) && offset >= 0 && lengthBytes >= 0;
  if (!valid || offset + lengthBytes > sizeBytes) {
    throw new RangeError(`no ${lengthBytes} bytes at ${offset} in ${sizeBytes}`);
  }
}
