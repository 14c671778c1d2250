import type { PageHasher } from '../page-hasher.ts';

/** A digest over bytes that arrive in pieces. Any number of them may be under way at once. */
export interface IncrementalHash {
  update(bytes: Uint8Array): void;
  /** The digest; nothing may be called afterwards (it throws). */
  digest(): Uint8Array;
}

/** The modes of BLAKE3; without a key or a context it is the plain hash. */
export interface Blake3Options {
  /** 32 bytes: the keyed mode, a message authentication code. */
  readonly key?: Uint8Array | undefined;
  /** The derive-key mode: what is hashed is key material. A constant of the program, never input. */
  readonly context?: string | undefined;
  /** Length of the output, 1 to 2^24 bytes; 32 unless told. Shorter outputs are prefixes of longer ones. */
  readonly outputBytes?: number | undefined;
}

/**
 * BLAKE3, without `this`: a provider is put together from parts.
 * @throws RangeError for a key of another length, a key and a context at once, or an output length out of bounds.
 */
export interface Blake3Functions {
  readonly blake3: (data: Uint8Array, options?: Blake3Options) => Uint8Array;
  readonly createBlake3: (options?: Blake3Options) => IncrementalHash;
  /** Scans and hashes an image's pages; dispose of it to give its buffer to the next image. */
  readonly createPageHasher: () => Promise<PageHasher>;
}

/** 32-byte digests of FIPS 180-4, without `this`. */
export interface Sha256Functions {
  readonly sha256: (data: Uint8Array) => Uint8Array;
  readonly createSha256: () => IncrementalHash;
}

/** Where digests come from. Every provider gives the same digests; they differ in speed. */
export interface HashProvider extends Blake3Functions, Sha256Functions {
  /** Which implementations are at work, for example `simd+node`. */
  readonly name: string;
}
