import { constants, createZstdCompress, type ZstdCompress } from 'node:zlib';

import { DecantError, MIB } from '@decant/core';

/** More than the frame of any chunk, which has at most 1 MiB: the stream must not wait for its reader inside a frame. */
const MOST_FRAME_BYTES = 4 * MIB;

/**
 * One zstd context that compresses one chunk at a time, on a thread of libuv's: a stream of which every write is a frame.
 * About 1 MB at level 1. Left to the collector when nobody uses it any more.
 */
export class ZstdContext {
  readonly #stream: ZstdCompress;
  #fail: ((error: unknown) => void) | undefined;

  /** Frames up to `outputBytes` come in one piece, mostly. */
  constructor(params: Readonly<Record<number, number>>, outputBytes: number) {
    this.#stream = createZstdCompress({
      flush: constants.ZSTD_e_end,
      chunkSize: outputBytes,
      params: { ...params },
      ...{ highWaterMark: MOST_FRAME_BYTES },
    });
    this.#stream.on('error', (error) => this.#fail?.(error));
  }

  /** The frame, in bytes of its own. Calls must not overlap; after a failure there must be no other. */
  async compress(plain: Uint8Array): Promise<Uint8Array> {
    await new Promise<void>((resolve, reject) => {
      this.#fail = reject;
      this.#stream.write(plain, (error) => {
        if (error instanceof Error) reject(error);
        else resolve();
      });
    });
    const frame: unknown = this.#stream.read();
    if (!(frame instanceof Uint8Array)) throw new DecantError('INTERNAL', 'zstd gave no frame.');
    const copy = new Uint8Array(frame);
    // The next frame begins at the start of the output buffer too: how much room zstd is given decides where some blocks
    // end, and equal chunks must give equal frames. Besides, the buffer is used again.
    (this.#stream as unknown as { _outOffset: number })._outOffset = 0;
    return copy;
  }
}
