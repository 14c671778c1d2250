import { constants, zstdCompressSync } from 'node:zlib';

import { ZSTDDecoder } from 'zstddec';

import { createDecoderCodec } from '../../packages/cas/src/index.ts';
import { createZstdCodec } from '../../packages/cas/src/node/index.ts';
import { isDecantError, PAGE_BYTES } from '../../packages/core/src/index.ts';
import type { Random } from '../random.ts';
import { Finding, requireEqualBytes, type FuzzTarget } from '../target.ts';

const codec = createZstdCodec();
const decoder = new ZSTDDecoder();
await decoder.init();
const portable = createDecoderCodec((frame, plainBytes) => decoder.decode(frame, plainBytes));
const LENGTHS = [1, 1, 2, 16].map((pages) => pages * PAGE_BYTES);

/** A frame behind four bytes with the length that its content is said to have. */
function generate(random: Random): Uint8Array {
  const length = random.pick(LENGTHS);
  const word = random.bytes(random.between(1, 300));
  const plain = new Uint8Array(length).map((_, at) => word[at % word.length]!);
  if (random.chance(0.5)) plain.set(random.bytes(length >> 2), random.below(length >> 1));
  const params = {
    [constants.ZSTD_c_compressionLevel]: random.pick([1, 3, 9]),
    [constants.ZSTD_c_checksumFlag]: random.below(2),
    [constants.ZSTD_c_contentSizeFlag]: random.chance(0.9) ? 1 : 0,
  };
  // The types do not know the size that zstd is told before.
  const options = { params, pledgedSrcSize: length };
  const frame = zstdCompressSync(plain, options);
  const input = new Uint8Array(4 + frame.length);
  new DataView(input.buffer).setUint32(0, length, true);
  input.set(frame, 4);
  return input;
}

/** A length that the parser of a manifest or a pack would have let through. */
function repair(bytes: Uint8Array<ArrayBuffer>, random: Random): void {
  if (bytes.length >= 4 && random.chance(0.9)) new DataView(bytes.buffer).setUint32(0, random.pick(LENGTHS), true);
}

/** What browsers decode with, on the same input: it may be stricter, and must refuse in the same way. */
function portablePlain(frame: Uint8Array, plainBytes: number): Uint8Array | undefined {
  try {
    return portable.decode(frame, 'zstd', plainBytes);
  } catch (error) {
    if (isDecantError(error, 'CAS_ZSTD_INVALID')) return undefined;
    throw error;
  }
}

function check(bytes: Uint8Array): void {
  if (bytes.length < 4) return;
  const plainBytes = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) & 0x3ff000;
  const frame = bytes.subarray(4);
  const other = portablePlain(frame, plainBytes);
  const plain = codec.decode(frame, 'zstd', plainBytes);
  if (other !== undefined) requireEqualBytes('what two decoders give', other, plain);
  if (plain.length !== plainBytes) throw new Finding(`${plain.length} bytes came out, not ${plainBytes}`);
  if (plain.buffer.byteLength > Math.max(64, plainBytes) + 4096) {
    throw new Finding(`${plainBytes} bytes keep a buffer of ${plain.buffer.byteLength}`);
  }
}

export const zstdTarget: FuzzTarget = {
  name: 'zstd',
  refusals: ['CAS_ZSTD_INVALID'],
  maxMs: 2000,
  maxMemoryBytes: 48 * 2 ** 20,
  generate,
  repair,
  check,
};
