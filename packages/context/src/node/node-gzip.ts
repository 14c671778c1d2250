import { crc32, createDeflateRaw } from 'node:zlib';

import { GZIP_HEADER, gzipTrailer } from '../archive/gzip.ts';

/** Bytes of a piece of the result: larger ones would only wait longer to be sent. */
const OUTPUT_BYTES = 64 * 1024;

/**
 * As the portable `gzip`, with zlib in a thread of the pool: about as fast, while memory stays lower and the checksum
 * costs nothing. The compressed bytes are those of Node's zlib and may differ between its versions.
 */
export async function* nodeGzip(source: AsyncIterable<Uint8Array<ArrayBuffer>>): AsyncGenerator<Uint8Array, void> {
  let crc = 0;
  let length = 0;
  const deflate = createDeflateRaw({ chunkSize: OUTPUT_BYTES });
  let goOn = (): void => undefined;
  deflate.on('close', () => goOn());
  // The reader is told as it reads on, which may be later.
  deflate.on('error', () => undefined);
  // One piece at a time, and the next only when zlib has done with it: whoever makes them may use one buffer for all.
  const write = (piece: Uint8Array) =>
    new Promise<void>((resolve) => {
      goOn = resolve;
      deflate.write(piece, () => resolve());
    });
  const feeding = (async () => {
    try {
      for await (const piece of source) {
        if (deflate.destroyed) return;
        crc = crc32(piece, crc);
        length += piece.length;
        await write(piece);
      }
      deflate.end();
    } catch (error) {
      // Reaches the reader through the stream.
      deflate.destroy(error as Error);
    }
  })();
  try {
    yield GZIP_HEADER;
    for await (const piece of deflate as AsyncIterable<Buffer>) yield piece;
    yield gzipTrailer(crc, length);
  } finally {
    deflate.destroy();
    await feeding;
  }
}
