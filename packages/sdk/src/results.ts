import type { ImageFormat } from '@decant/core';

/** What `create` and `import` give back, and what the command line prints with `--json`. */
export interface ImageResult {
  readonly image: {
    readonly id: string;
    readonly name: string;
    readonly tag: string;
    readonly format: ImageFormat;
    readonly architecture: 'amd64' | 'arm64' | null;
    readonly virtualBytes: number;
    readonly contentBytes: number;
    readonly createdAt: string;
  };
  /** Distinct chunks of the image, and how many of them the server had; null for an image of one object. */
  readonly chunks: { readonly total: number; readonly new: number; readonly reused: number } | null;
  readonly bytes: {
    /** Plain bytes of the new chunks. */
    readonly new: number;
    /** The same as stored at rest. */
    readonly stored: number;
    /** Bytes of all uploads on the wire. */
    readonly uploaded: number;
  };
  readonly timingsMs: {
    readonly build: number;
    readonly layout: number;
    readonly upload: number;
    readonly admit: number;
    readonly total: number;
  };
}

/** What one run of a streamed image took. */
export interface RunStats {
  readonly chunksFetched: number;
  /** As stored, before decompression. */
  readonly bytesFetched: number;
  readonly bytesVirtual: number;
  /** Intervals in which the guest waited for at least one fetch. */
  readonly rounds: number;
}
