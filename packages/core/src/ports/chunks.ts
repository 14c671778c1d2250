import type { ChunkId } from '../ids.ts';
import type { CallOptions } from './object-store.ts';

export type ChunkEncoding = 'raw' | 'zstd';

/** One chunk as it is stored: not yet verified. */
export interface ChunkFrame {
  readonly id: ChunkId;
  readonly encoding: ChunkEncoding;
  /** Length of the plain bytes: a multiple of 4,096, at most 4 MiB. */
  readonly plainBytes: number;
  readonly stored: Uint8Array;
}

/** Somewhere chunks can be read from. What it yields must still be verified by whoever asked. */
export interface ChunkSource {
  /** The subset of `ids` this source can give. */
  has(ids: readonly ChunkId[], options?: CallOptions): Promise<ReadonlySet<ChunkId>>;
  /** The chunks of `ids`, each once, in any order. @throws CAS_CHUNK_MISSING when one is not there. */
  get(ids: readonly ChunkId[], options?: CallOptions): AsyncIterable<ChunkFrame>;
}

/** Where a chunk lies at rest. */
export interface ChunkLocation {
  /** Full object key of the pack. */
  readonly packKey: string;
  /** Offset of the frame from the start of the pack, in bytes. */
  readonly offset: number;
  readonly storedBytes: number;
  readonly plainBytes: number;
  readonly encoding: ChunkEncoding;
}

/** The chunks a namespace can reach, and where they lie. */
export interface ChunkIndex {
  /** Locations of those `ids` that the namespace can reach. At most 65,536 ids a call. */
  locate(ids: readonly ChunkId[]): Promise<ReadonlyMap<ChunkId, ChunkLocation>>;
}
