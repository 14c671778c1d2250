import type { ChunkEncoding } from '@decant/core';

/** Compression of single chunks. */
export interface ChunkCodec {
  /** What to store for plain bytes; `stored` may be `plain` itself when it is raw. */
  encode(plain: Uint8Array): { readonly encoding: ChunkEncoding; readonly stored: Uint8Array };
  /**
   * Plain bytes of what was stored; exactly `plainBytes` of them, and never more memory than that. The result
   * may be `stored` itself when it is raw. @throws CAS_ZSTD_INVALID, CAS_CHUNK_MISMATCH (raw, of another length).
   */
  decode(stored: Uint8Array, encoding: ChunkEncoding, plainBytes: number): Uint8Array;
}
