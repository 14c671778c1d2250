import {
  openChunk,
  type ChunkCodec,
  type ChunkStore,
  type HashProvider,
  type Manifest,
  type RandomAccess,
} from '@decant/cas';
import {
  DecantError,
  MIB,
  PAGE_BYTES,
  retry,
  Semaphore,
  untilAborted,
  type CallOptions,
  type ChunkFrame,
  type ChunkId,
  type ChunkSource,
} from '@decant/core';

import { ChunkMemory } from './chunk-memory.ts';

export interface ImageDiskOptions {
  readonly manifest: Manifest;
  /** Where chunks come from; nothing it gives is believed. */
  readonly source: ChunkSource;
  readonly hash: HashProvider;
  readonly codec: ChunkCodec;
  /** Asked before the source and given what was verified. It must verify what it reads back itself. */
  readonly cache?: ChunkStore | undefined;
  /** Plain chunk bytes kept in memory, the ones longest unused forgotten first; default 64 MiB. */
  readonly memoryBytes?: number | undefined;
  /** Calls to the source at a time; default 16. */
  readonly concurrency?: number | undefined;
  /** Calls to the source for one chunk before a read fails; default 4. */
  readonly attempts?: number | undefined;
  /** Delay before the second, in milliseconds, doubling after; default 100. */
  readonly retryDelayMs?: number | undefined;
  /** Ends all fetches; reads then throw its reason. */
  readonly signal?: AbortSignal | undefined;
}

export interface ImageDiskStats {
  /** Chunks that came from the source and were verified, and their stored bytes. */
  readonly chunksFetched: number;
  readonly bytesFetched: number;
  /** Size of the image as a disk, in bytes. */
  readonly bytesVirtual: number;
  /** Intervals in which at least one read waited for the source. */
  readonly rounds: number;
}

export interface ImageDisk extends RandomAccess, AsyncDisposable {
  stats(): ImageDiskStats;
}

interface Wanted {
  readonly id: ChunkId;
  readonly plainBytes: number;
}

/** One chunk on its way. */
interface Pending extends Wanted {
  readonly promise: Promise<Uint8Array>;
  readonly resolve: (plain: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** Plain bytes asked of the source in one call: enough for neighbours to be fetched together, little enough to share out. */
const BATCH_BYTES = 4 * MIB;

/**
 * An image as a disk whose chunks are fetched when they are first read. A byte is only given from a chunk that
 * was verified; a chunk is fetched once however many readers wait for it; holes are zeros.
 * `read` throws STREAM_READ_FAILED when a chunk could not be had, and RangeError outside the disk.
 */
export function createImageDisk(options: ImageDiskOptions): ImageDisk {
  const { manifest, source, hash, codec, cache, memoryBytes = 64 * MIB, concurrency = 16 } = options;
  const { attempts = 4, retryDelayMs = 100 } = options;
  const ending = new AbortController();
  const signal = options.signal === undefined ? ending.signal : AbortSignal.any([options.signal, ending.signal]);
  const memory = new ChunkMemory(memoryBytes);
  const pending = new Map<ChunkId, Pending>();
  const running = new Set<Promise<void>>();
  const calls = new Semaphore(concurrency);
  let fetching = 0;
  let chunksFetched = 0;
  let bytesFetched = 0;
  let rounds = 0;

  return {
    sizeBytes: manifest.virtualBytes,
    stats: () => ({ chunksFetched, bytesFetched, bytesVirtual: manifest.virtualBytes, rounds }),
    read,
    async [Symbol.asyncDispose]() {
      ending.abort(new DecantError('STREAM_READ_FAILED', 'The disk was closed.', { retryable: false }));
      await Promise.all(running);
    },
  };

  async function read(offset: number, lengthBytes: number, call: CallOptions = {}): Promise<Uint8Array> {
    signal.throwIfAborted();
    call.signal?.throwIfAborted();
    const end = offset + lengthBytes;
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(lengthBytes) || offset < 0 || lengthBytes < 0) {
      throw new RangeError(`not a range: ${lengthBytes} bytes at ${offset}`);
    }
    if (end > manifest.virtualBytes) {
      throw new RangeError(`no ${lengthBytes} bytes at ${offset} in ${manifest.virtualBytes}`);
    }
    const answer = new Uint8Array(lengthBytes);
    const waits: Promise<void>[] = [];
    const missing: Pending[] = [];
    let entry = lengthBytes === 0 ? manifest.entryCount : manifest.find(Math.floor(offset / PAGE_BYTES));
    for (; entry < manifest.entryCount; entry++) {
      const { id, firstPage, pages } = manifest.entry(entry);
      const start = firstPage * PAGE_BYTES;
      if (start >= end) break;
      if (id === null) continue;
      const from = Math.max(offset, start);
      const to = Math.min(end, start + pages * PAGE_BYTES);
      const copy = (plain: Uint8Array) => answer.set(plain.subarray(from - start, to - start), from - offset);
      const known = memory.get(id);
      if (known !== undefined) {
        copy(known);
        continue;
      }
      let chunk = pending.get(id);
      if (chunk === undefined) {
        chunk = { id, plainBytes: pages * PAGE_BYTES, ...Promise.withResolvers<Uint8Array>() };
        // Someone else may be the one who waits; a failure is theirs, too.
        chunk.promise.catch(() => undefined);
        pending.set(id, chunk);
        missing.push(chunk);
      }
      waits.push(chunk.promise.then(copy));
    }
    for (const batch of batches(missing)) start(batch);
    if (waits.length > 0) await untilAborted(Promise.all(waits), call.signal);
    return answer;
  }

  function start(batch: readonly Pending[]): void {
    const work = load(batch).finally(() => running.delete(work));
    running.add(work);
  }

  /** Brings every chunk of the batch or fails it; never rejects. */
  async function load(batch: readonly Pending[]): Promise<void> {
    const left = new Map(batch.map((chunk) => [chunk.id, chunk]));
    const arrived = (chunk: Pending, bytes: Uint8Array) => {
      // A view of a larger buffer would keep all of it alive.
      const plain = bytes.length === bytes.buffer.byteLength ? bytes : bytes.slice();
      memory.put(chunk.id, plain);
      left.delete(chunk.id);
      pending.delete(chunk.id);
      chunk.resolve(plain);
    };
    if (cache !== undefined) {
      for (const chunk of batch) {
        // A cache that fails is a cache that does not have it.
        const plain = await cache.get(chunk.id, chunk.plainBytes, { signal }).catch(() => undefined);
        if (plain?.length === chunk.plainBytes) arrived(chunk, plain);
      }
      if (left.size === 0) return;
    }
    if (fetching++ === 0) rounds++;
    try {
      await retry(() => calls.run(() => fetchOnce(left, arrived), signal), {
        attempts,
        firstDelayMs: retryDelayMs,
        when: () => !signal.aborted,
        signal,
      });
    } catch (error) {
      for (const chunk of left.values()) {
        pending.delete(chunk.id);
        chunk.reject(signal.aborted ? signal.reason : failed(chunk, error));
      }
    } finally {
      fetching--;
    }
  }

  async function fetchOnce(
    left: ReadonlyMap<ChunkId, Pending>,
    arrived: (chunk: Pending, plain: Uint8Array) => void,
  ): Promise<void> {
    let bad: unknown;
    for await (const frame of source.get([...left.keys()], { signal })) {
      const chunk = left.get(frame.id);
      if (chunk === undefined) continue;
      const plain = open(frame, chunk);
      if (plain instanceof Error) {
        bad = plain;
        continue;
      }
      chunksFetched++;
      bytesFetched += frame.stored.length;
      arrived(chunk, plain);
      // A full disk under the cache must not fail a read.
      await cache?.put(chunk.id, plain, { signal }).catch(() => undefined);
    }
    if (left.size === 0) return;
    throw bad ?? new DecantError('CAS_CHUNK_MISSING', `The source did not give ${left.size} chunks.`);
  }

  function open(frame: ChunkFrame, wanted: Wanted): Uint8Array | Error {
    try {
      return openChunk(frame, wanted, { hash, codec });
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }
}

function* batches(chunks: readonly Pending[]): Generator<Pending[]> {
  let batch: Pending[] = [];
  let bytes = 0;
  for (const chunk of chunks) {
    if (batch.length > 0 && bytes + chunk.plainBytes > BATCH_BYTES) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(chunk);
    bytes += chunk.plainBytes;
  }
  if (batch.length > 0) yield batch;
}

function failed(chunk: Wanted, cause: unknown): DecantError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new DecantError('STREAM_READ_FAILED', `Chunk ${chunk.id} could not be fetched and verified: ${why}`, {
    details: { chunk: chunk.id, plainBytes: chunk.plainBytes },
    cause,
  });
}
