/*
 * RFC 1952: | 1f 8b | method 8 | flags 0 | time 0 (4 bytes) | extra flags 0 | system 255, unknown | deflated bytes |
 *           | CRC-32 | length modulo 2^32 |, both little-endian
 */
export const GZIP_HEADER = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);

/** What ends a gzip member: the CRC-32 of the plain bytes, and how many there were. */
export function gzipTrailer(crc: number, length: number): Uint8Array<ArrayBuffer> {
  const trailer = new DataView(new ArrayBuffer(8));
  trailer.setUint32(0, crc, true);
  trailer.setUint32(4, length >>> 0, true);
  return new Uint8Array(trailer.buffer);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** The bytes compressed, behind a header that says nothing of the machine or the time. */
export async function* gzip(source: AsyncIterable<Uint8Array<ArrayBuffer>>): AsyncGenerator<Uint8Array, void> {
  let crc = 0xffff_ffff;
  let length = 0;
  const deflate = new CompressionStream('deflate-raw');
  const writer = deflate.writable.getWriter();
  const reader = deflate.readable.getReader();
  let failure: { error: unknown } | undefined;
  const feeding = (async () => {
    try {
      for await (const piece of source) {
        for (const byte of piece) crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
        length += piece.length;
        // Settles when there is room for more: the source is read no faster than the result.
        // A copy, because the stream may keep it for longer than the source does.
        await writer.write(piece.slice());
      }
      await writer.close();
    } catch (error) {
      failure = { error };
      await writer.abort(error).catch(() => undefined);
    }
  })();
  try {
    yield GZIP_HEADER;
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw failure === undefined ? error : failure.error;
      });
      if (done) break;
      yield value;
    }
    yield gzipTrailer((crc ^ 0xffff_ffff) >>> 0, length);
  } finally {
    await reader.cancel().catch(() => undefined);
    await feeding;
  }
}
