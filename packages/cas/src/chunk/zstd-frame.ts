import { invalid, readU64, viewOf } from '../bytes/bytes-reader.ts';

/*
 * One zstd frame (RFC 8878, section 3.1.1):
 *
 *     u32 magic 0xfd2fb528
 *     u8  descriptor: bits 7-6 content size flag, 5 single segment, 4 unused, 3 reserved, 2 checksum, 1-0 dictionary flag
 *     u8  window descriptor, unless single segment
 *     0, 1, 2 or 4 bytes dictionary id
 *     0 (1 when single segment), 2, 4 or 8 bytes content size; two bytes count from 256
 *     blocks: 3 bytes (bit 0 last, bits 2-1 type, the rest size), then size bytes, or 1 for a run-length block
 *     u32 checksum, if flagged
 */
const MAGIC = 0xfd2fb528;
/** Largest window a frame may ask for: 8 MiB, RFC 8878's recommendation. */
const MAX_WINDOW_BYTES = 8 * 2 ** 20;
const BLOCK_RLE = 1;
const BLOCK_RESERVED = 3;

/**
 * Checks, without decompressing, that bytes are exactly one zstd frame that declares `plainBytes` of content and
 * needs no dictionary. @throws CAS_ZSTD_INVALID with the byte offset in the frame.
 */
export function checkZstdFrame(frame: Uint8Array, plainBytes: number): void {
  const view = viewOf(frame);
  const need = (at: number, count: number) => {
    if (at + count > frame.length) throw bad(frame.length, 'it is cut short');
  };
  need(0, 5);
  if (view.getUint32(0, true) !== MAGIC) throw bad(0, 'it is not a zstd frame');
  const descriptor = frame[4]!;
  const single = (descriptor & 0x20) !== 0;
  if ((descriptor & 0x08) !== 0) throw bad(4, 'a reserved bit is set');
  if ((descriptor & 0x03) !== 0) throw bad(4, 'it asks for a dictionary');
  let at = 5;
  if (!single) {
    need(at, 1);
    const base = 2 ** (10 + (frame[at]! >> 3));
    if (base + (base / 8) * (frame[at]! & 7) > MAX_WINDOW_BYTES) throw bad(at, 'it asks for a window above 8 MiB');
    at++;
  }
  const sizeBytes = [single ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  need(at, sizeBytes);
  const declared =
    sizeBytes === 0
      ? undefined
      : sizeBytes === 1
        ? frame[at]
        : sizeBytes === 2
          ? view.getUint16(at, true) + 256
          : sizeBytes === 4
            ? view.getUint32(at, true)
            : readU64(view, at);
  if (declared !== plainBytes) throw bad(at, `it declares ${declared ?? 'no'} bytes of content, not ${plainBytes}`);
  at += sizeBytes;
  for (let last = false; !last;) {
    need(at, 3);
    const header = frame[at]! | (frame[at + 1]! << 8) | (frame[at + 2]! << 16);
    const type = (header >> 1) & 3;
    if (type === BLOCK_RESERVED) throw bad(at, 'a block has the reserved type');
    last = (header & 1) !== 0;
    at += 3;
    const blockBytes = type === BLOCK_RLE ? 1 : header >> 3;
    need(at, blockBytes);
    at += blockBytes;
  }
  if ((descriptor & 0x04) !== 0) {
    need(at, 4);
    at += 4;
  }
  if (at !== frame.length) throw bad(at, 'bytes follow the frame');
}

function bad(offset: number, problem: string): Error {
  return invalid('CAS_ZSTD_INVALID', 'zstd frame', offset, problem);
}
