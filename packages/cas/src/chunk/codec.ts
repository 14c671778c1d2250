import type { ChunkEncoding } from '@decant/core';

/** What to store for plain bytes. */
export interface EncodedChunk {
  readonly encoding: ChunkEncoding;
  /** May be the plain bytes themselves when it is raw. */
  readonly stored: Uint8Array;
}

/** Compression of single chunks. */
export interface ChunkCodec {
  encode(plain: Uint8Array): EncodedChunk;
  /**
   * Plain bytes of what was stored; exactly `plainBytes` of them, and never more memory than that. The result
   * may be `stored` itself when it is raw. @throws CAS_ZSTD_INVALID, CAS_CHUNK_MISMATCH (raw, of another length).
   */
  decode(stored: Uint8Array, encoding: ChunkEncoding, plainBytes: number): Uint8Array;
}

/**
 * A codec that also works beside its caller, on other threads. What it gives is the same; what it is given must not change
 * until it has. The caller bounds how many calls are at work.
 */
export interface ThreadedCodec extends ChunkCodec {
  encodeAside(plain: Uint8Array): Promise<EncodedChunk>;
  /** What `use` makes of the plain bytes, which are good until it returns. */
  decodeAside<T>(
    stored: Uint8Array,
    encoding: ChunkEncoding,
    plainBytes: number,
    use: (plain: Uint8Array) => T,
  ): Promise<T>;
}
