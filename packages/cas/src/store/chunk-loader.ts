import {
  DecantError,
  MIB,
  retry,
  Semaphore,
  untilAborted,
  type CallOptions,
  type ChunkFrame,
  type ChunkId,
  type ChunkSource,
} from '@decant/core';

import type { ChunkCodec } from '../chunk/codec.ts';
import { openChunk, type ExpectedChunk } from '../chunk/open-chunk.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import { ChunkMemory } from './chunk-memory.ts';
import type { ChunkStore } from './chunk-store.ts';

export interface ChunkLoaderOptions {
  /** Where chunks come from; nothing it gives is believed. */
  readonly source: ChunkSource;
  readonly hash: HashProvider;
  readonly codec: ChunkCodec;
  /**
   * Asked before the source and given what was verified; one that fails costs time, not the read. It must verify what it
   * reads back itself.
   */
  readonly cache?: ChunkStore | undefined;
  /** Plain bytes kept in memory, the ones longest unused forgotten first; default 64 MiB. */
  readonly memoryBytes?: number | undefined;
  /** Calls to the source at a time, each for up to 4 MiB of plain bytes; default 16. */
  readonly concurrency?: number | undefined;
  /** Calls to the source for one chunk before it fails; default 4. */
  readonly attempts?: number | undefined;
  /** Delay before the second, in milliseconds, doubling after; default 100. */
  readonly retryDelayMs?: number | undefined;
  /** What is thrown for a chunk that could not be had; default: what the last call threw. */
  readonly failure?: ((chunk: ExpectedChunk, cause: unknown) => unknown) | undefined;
  /** Ends all fetches; `load` then throws its reason. */
  readonly signal?: AbortSignal | undefined;
}

export interface ChunkLoaderStats {
  /** Chunks that came from the source and were verified, and their stored bytes. */
  readonly chunksFetched: number;
  readonly bytesFetched: number;
  /** Intervals in which at least one caller waited for the source. */
  readonly rounds: number;
}

/** Verified chunks from a source: one fetch for each however many callers wait for it. */
export interface ChunkLoader {
  /**
   * Gives each chunk to `use` as it is there, in any order; its bytes are not to be written to. When the signal aborts,
   * or a chunk fails, fetches that nobody else waits for are ended.
   * @throws what {@link ChunkLoaderOptions.failure} makes of CAS_CHUNK_MISMATCH, CAS_ZSTD_INVALID, CAS_CHUNK_MISSING and of
   * what the source throws.
   */
  load(
    chunks: Iterable<ExpectedChunk>,
    use: (chunk: ExpectedChunk, plain: Uint8Array) => void,
    options?: CallOptions,
  ): Promise<void>;
  stats(): ChunkLoaderStats;
  /** Settles when no fetch is under way. */
  idle(): Promise<void>;
}

/** One chunk on its way. */
interface Pending extends ExpectedChunk {
  readonly batch: Batch;
  readonly promise: Promise<Uint8Array>;
  readonly resolve: (plain: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** Chunks that one call of the source is asked for, and how many callers wait for any of them. */
interface Batch {
  readonly chunks: Pending[];
  readonly stop: AbortController;
  waiting: number;
}

/** Plain bytes asked of the source in one call: enough for neighbours to be fetched together, little enough to share out. */
const BATCH_BYTES = 4 * MIB;

export function createChunkLoader(options: ChunkLoaderOptions): ChunkLoader {
  const { source, hash, codec, cache, memoryBytes = 64 * MIB, concurrency = 16, signal: ended } = options;
  const { attempts = 4, retryDelayMs = 100, failure = (_: ExpectedChunk, cause: unknown) => cause } = options;
  const memory = new ChunkMemory(memoryBytes);
  const pending = new Map<ChunkId, Pending>();
  const running = new Set<Promise<void>>();
  const calls = new Semaphore(concurrency);
  let fetching = 0;
  let chunksFetched = 0;
  let bytesFetched = 0;
  let rounds = 0;

  return {
    stats: () => ({ chunksFetched, bytesFetched, rounds }),
    idle: async () => void (await Promise.all(running)),
    async load(chunks, use, { signal } = {}) {
      ended?.throwIfAborted();
      signal?.throwIfAborted();
      const fresh = new Map<ChunkId, ExpectedChunk>();
      const wanted: ExpectedChunk[] = [];
      for (const chunk of chunks) {
        const known = memory.get(chunk.id, chunk.plainBytes);
        if (known !== undefined) {
          use(chunk, known);
          continue;
        }
        wanted.push(chunk);
        if (!pending.has(chunk.id)) fresh.set(chunk.id, chunk);
      }
      for (const batch of batches(fresh.values())) start(batch);
      const held = new Set(wanted.map(({ id }) => pending.get(id)!.batch));
      for (const batch of held) batch.waiting++;
      try {
        const waits = wanted.map(async (chunk) => {
          const plain = await pending.get(chunk.id)!.promise;
          if (plain.length !== chunk.plainBytes) throw failure(chunk, otherLength(chunk, plain.length));
          use(chunk, plain);
        });
        await untilAborted(Promise.all(waits), signal);
      } finally {
        for (const batch of held) if (--batch.waiting === 0) giveUp(batch);
      }
    },
  };

  function start(chunks: readonly ExpectedChunk[]): void {
    const batch: Batch = { chunks: [], stop: new AbortController(), waiting: 0 };
    for (const { id, plainBytes } of chunks) {
      const chunk = { id, plainBytes, batch, ...Promise.withResolvers<Uint8Array>() };
      // Whoever waits gets the failure; with nobody left it is no one's.
      chunk.promise.catch(() => undefined);
      pending.set(id, chunk);
      batch.chunks.push(chunk);
    }
    const { signal } = batch.stop;
    const done = fetchBatch(batch.chunks, ended === undefined ? signal : AbortSignal.any([ended, signal])).finally(() =>
      running.delete(done),
    );
    running.add(done);
  }

  /** Whoever asks for these chunks from now on starts anew. */
  function giveUp(batch: Batch): void {
    for (const chunk of batch.chunks) if (pending.get(chunk.id) === chunk) pending.delete(chunk.id);
    batch.stop.abort();
  }

  /** Brings every chunk of the batch or fails it; never rejects. */
  async function fetchBatch(batch: readonly Pending[], signal: AbortSignal): Promise<void> {
    const left = new Map(batch.map((chunk) => [chunk.id, chunk]));
    const settled = (chunk: Pending) => {
      left.delete(chunk.id);
      if (pending.get(chunk.id) === chunk) pending.delete(chunk.id);
    };
    const arrived = (chunk: Pending, bytes: Uint8Array) => {
      // A view of a larger buffer would keep all of it alive.
      const plain = bytes.length === bytes.buffer.byteLength ? bytes : bytes.slice();
      memory.put(chunk.id, plain);
      settled(chunk);
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
      await retry(() => calls.run(() => fetchOnce(left, arrived, signal), signal), {
        attempts,
        firstDelayMs: retryDelayMs,
        when: () => !signal.aborted,
        signal,
      });
    } catch (error) {
      for (const chunk of [...left.values()]) {
        settled(chunk);
        chunk.reject(signal.aborted ? signal.reason : failure(chunk, error));
      }
    } finally {
      fetching--;
    }
  }

  async function fetchOnce(
    left: ReadonlyMap<ChunkId, Pending>,
    arrived: (chunk: Pending, plain: Uint8Array) => void,
    signal: AbortSignal,
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
    const [lost] = left.keys();
    if (lost === undefined) return;
    throw (
      bad ??
      new DecantError('CAS_CHUNK_MISSING', `The source did not give chunk ${lost}.`, {
        details: { chunk: lost, missing: left.size },
      })
    );
  }

  function open(frame: ChunkFrame, wanted: ExpectedChunk): Uint8Array | Error {
    try {
      return openChunk(frame, wanted, { hash, codec });
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }
}

function* batches(chunks: Iterable<ExpectedChunk>): Generator<ExpectedChunk[]> {
  let batch: ExpectedChunk[] = [];
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

function otherLength({ id, plainBytes }: ExpectedChunk, actual: number): DecantError {
  return new DecantError('CAS_CHUNK_MISMATCH', `Chunk ${id} has ${actual} bytes, not ${plainBytes}.`, {
    details: { chunk: id },
  });
}
