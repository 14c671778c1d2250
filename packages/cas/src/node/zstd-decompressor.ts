import { createZstdDecompress, type ZstdDecompress } from 'node:zlib';

import { DecantError, KIB } from '@decant/core';

/** Most plain bytes of a frame that goes into the buffer a decompressor begins with: nearly all chunks. */
const FIRST_BYTES = 264 * KIB;
/** Bytes beyond those that are expected: a frame that has more shows in the same buffer. */
const SPARE_BYTES = 64;

/**
 * One zstd context that decompresses one frame at a time, on a thread of libuv's, into a buffer that it uses again: a stream of
 * which every write is a whole frame. Left to the collector when nobody uses it any more.
 */
export class ZstdDecompressor {
  #bufferBytes = 0;
  #stream: ZstdDecompress | undefined;
  #settle: ((error?: unknown) => void) | undefined;

  /**
   * The content of a frame of which `checkZstdFrame` holds, in memory that belongs to the next frame once that is asked for.
   * Calls must not overlap; after a failure there must be no other. Memory is bounded by `plainBytes`, whatever the frame has.
   * @throws what zlib does, CAS_ZSTD_INVALID for more content
   */
  async decompress(frame: Uint8Array, plainBytes: number): Promise<Uint8Array> {
    const stream = this.#streamFor(plainBytes + SPARE_BYTES);
    const takenBefore = stream.bytesWritten;
    await new Promise<void>((resolve, reject) => {
      this.#settle = (error) => {
        if (error === undefined) resolve();
        else reject(error);
      };
      stream.write(frame, (error) => this.#settle?.(error ?? undefined));
    });
    this.#settle = undefined;
    if (stream.bytesWritten - takenBefore !== frame.length || stream.readableLength > plainBytes) {
      throw new DecantError('CAS_ZSTD_INVALID', `A zstd frame has more than ${plainBytes} bytes of content.`);
    }
    const plain: unknown = stream.read();
    // The next frame begins at the start of the buffer. Node's streams have no way to be told; were this field not what it
    // is, the content would come in new memory, or in parts that `read` joins.
    (stream as unknown as { _outOffset: number })._outOffset = 0;
    return plain instanceof Uint8Array ? plain : new Uint8Array(0);
  }

  /** A stream whose buffer takes so many bytes. */
  #streamFor(bytes: number): ZstdDecompress {
    if (this.#stream !== undefined && bytes <= this.#bufferBytes) return this.#stream;
    this.close();
    this.#bufferBytes = Math.max(FIRST_BYTES, bytes);
    const stream = createZstdDecompress({
      chunkSize: this.#bufferBytes,
      // A frame that fills the buffer waits for a reader, and is found out; all others must not.
      ...{ highWaterMark: this.#bufferBytes },
    });
    stream.on('error', (error) => this.#settle?.(error));
    stream.on('readable', () => {
      if (stream.readableLength >= this.#bufferBytes) {
        this.#settle?.(new DecantError('CAS_ZSTD_INVALID', 'A zstd frame has more content than was declared.'));
      }
    });
    this.#stream = stream;
    return stream;
  }

  close(): void {
    this.#stream?.destroy();
    this.#stream = undefined;
  }
}
