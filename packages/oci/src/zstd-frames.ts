import { DecantError, formatBytes } from '@decant/core';

import type { StreamCursor } from './byte-cursor.ts';
import { limitError } from './limits.ts';

/*
 * The outer structure of zstd (RFC 8878): frames, one after the other, of two kinds.
 *
 *   frame:      magic 4 (28 b5 2f fd) | descriptor 1 | window 0-1 | dictionary 0-4 | content size 0-8
 *               | blocks | checksum 0 or 4
 *   block:      header 3, little-endian: bit 0 last, bits 1-2 type, bits 3-23 size | content
 *   skippable:  magic 4 (50-5f 2a 4d 18) | size 4 | content
 *
 * Frames are told apart here because Node's zstd stops after the first one without an error.
 */
const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;
const BLOCK_LIMIT = 128 * 1024;
const RLE = 1;
const RESERVED = 3;
/** Pieces handed to the decoder have at least this many bytes, but for the last of a frame. */
const BATCH_BYTES = 128 * 1024;

export interface ZstdFrame {
  /** The bytes of this frame; they must be read before the next frame is asked for. */
  readonly bytes: AsyncGenerator<Uint8Array, void, undefined>;
  readonly windowBytes: number;
}

/**
 * The frames of a zstd stream, skippable ones left out.
 * @throws LAYER_INVALID with the byte offset at fault, LIMIT_EXCEEDED for a window over `windowLimit`.
 */
export async function* zstdFrames(
  cursor: StreamCursor,
  windowLimit: number,
): AsyncGenerator<ZstdFrame, void, undefined> {
  for (;;) {
    const offset = cursor.offset;
    const magicBytes = await cursor.take(4);
    if (magicBytes.length === 0) return;
    const magic = magicBytes.length === 4 ? littleEndian(magicBytes) : 0;
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE) {
      const size = littleEndian(await exactly(cursor, 4));
      if ((await cursor.skip(size)) < size) throw broken('the data ends inside a skippable frame', cursor.offset);
      continue;
    }
    if (magic !== MAGIC) throw broken('a zstd frame does not begin where it should', offset);
    const header = await readFrameHeader(cursor, offset);
    if (header.windowBytes > windowLimit) {
      throw limitError(
        `A zstd frame needs a window of ${formatBytes(header.windowBytes)}, the limit is ${formatBytes(windowLimit)}.`,
        { name: 'zstdWindowBytes', value: windowLimit },
        { offset },
      );
    }
    yield { windowBytes: header.windowBytes, bytes: frameBytes(cursor, header.bytes, header.checksum) };
  }
}

async function readFrameHeader(
  cursor: StreamCursor,
  offset: number,
): Promise<{ bytes: Uint8Array; windowBytes: number; checksum: boolean }> {
  const descriptor = (await exactly(cursor, 1))[0]!;
  const single = (descriptor & 0x20) !== 0;
  if ((descriptor & 0x08) !== 0) throw broken('a zstd frame uses a reserved bit', offset + 4);
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = [single ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const rest = new Uint8Array(await exactly(cursor, (single ? 0 : 1) + dictionaryBytes + sizeBytes));
  const dictionary = rest.subarray(single ? 0 : 1, (single ? 0 : 1) + dictionaryBytes);
  if (dictionary.some((byte) => byte !== 0)) throw broken('a zstd frame needs a dictionary', offset);
  let windowBytes: number;
  if (single) {
    windowBytes = 0;
    for (const byte of rest.subarray(dictionaryBytes).toReversed()) windowBytes = windowBytes * 256 + byte;
    if (sizeBytes === 2) windowBytes += 256;
  } else {
    const base = 2 ** (10 + (rest[0]! >> 3));
    windowBytes = base + (base / 8) * (rest[0]! & 7);
  }
  const bytes = new Uint8Array(5 + rest.length);
  new DataView(bytes.buffer).setUint32(0, MAGIC, true);
  bytes[4] = descriptor;
  bytes.set(rest, 5);
  return { bytes, windowBytes, checksum: (descriptor & 4) !== 0 };
}

async function* frameBytes(
  cursor: StreamCursor,
  header: Uint8Array,
  checksum: boolean,
): AsyncGenerator<Uint8Array, void, undefined> {
  let batch: Uint8Array[] = [header];
  let batchBytes = header.length;
  for (let last = false; !last;) {
    const offset = cursor.offset;
    const head = new Uint8Array(await exactly(cursor, 3));
    const value = head[0]! | (head[1]! << 8) | (head[2]! << 16);
    last = (value & 1) !== 0;
    const type = (value >> 1) & 3;
    const declared = value >> 3;
    if (type === RESERVED || declared > BLOCK_LIMIT) throw broken('a zstd block has a wrong type or size', offset);
    const content = new Uint8Array(await exactly(cursor, (type === RLE ? 1 : declared) + (last && checksum ? 4 : 0)));
    batch.push(head, content);
    batchBytes += head.length + content.length;
    if (last || batchBytes >= BATCH_BYTES) {
      yield Buffer.concat(batch);
      batch = [];
      batchBytes = 0;
    }
  }
}

async function exactly(cursor: StreamCursor, lengthBytes: number): Promise<Uint8Array> {
  const bytes = await cursor.take(lengthBytes);
  if (bytes.length < lengthBytes) throw broken('the data ends inside a zstd frame', cursor.offset);
  return bytes;
}

function littleEndian(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}

function broken(what: string, offset: number): DecantError {
  return new DecantError('LAYER_INVALID', `The compressed layer is broken at byte ${offset}: ${what}.`, {
    details: { offset },
  });
}
