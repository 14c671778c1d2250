import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync, inflateRawSync, zstdCompressSync } from 'node:zlib';

import { decompress, type Compression } from '../../packages/oci/src/decompress.ts';
import { inPieces } from '../../packages/oci/src/testing/index.ts';
import type { Random } from '../random.ts';
import { Finding, type FuzzTarget } from '../target.ts';

const WINDOW_BYTES = 2 ** 20;
/** Reading stops here, as that of layers does at their limits. */
const MAX_BYTES = 2 ** 23;

function plainOf(random: Random): Buffer {
  const parts = Array.from({ length: random.below(4) }, () => {
    const unit = random.bytes(1 + random.below(50));
    return Buffer.concat(Array.from({ length: random.below(random.chance(0.1) ? 3000 : 30) }, () => unit));
  });
  return Buffer.concat(parts);
}

function zstdFrame(random: Random): Buffer {
  if (!random.chance(0.1)) return zstdCompressSync(plainOf(random));
  const content = random.bytes(random.below(40));
  const head = Buffer.from([0x50 + random.below(16), 0x2a, 0x4d, 0x18, content.length, 0, 0, 0]);
  return Buffer.concat([head, content]);
}

const several = (random: Random, one: () => Buffer) =>
  Uint8Array.from(Buffer.concat(Array.from({ length: 1 + random.below(3) }, one)));

/** Makes checksum and length fit where the bytes are one member that can be unpacked. */
function repairGzip(bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length < 18 || bytes[3] !== 0) return;
  try {
    const plain = inflateRawSync(bytes.subarray(10, -8), { maxOutputLength: MAX_BYTES });
    bytes.set(gzipSync(plain).subarray(-8), bytes.length - 8);
  } catch {
    // It stays broken.
  }
}

/** Length and hash of what it unpacks to, up to the bound. */
async function unpack(bytes: Uint8Array, compression: Compression, pieceBytes: number): Promise<string> {
  const hash = createHash('sha256');
  let length = 0;
  for await (const piece of decompress(inPieces(bytes, pieceBytes), compression, { zstdWindowBytes: WINDOW_BYTES })) {
    hash.update(piece);
    length += piece.length;
    if (length > MAX_BYTES) return 'too much';
  }
  return `${length} ${hash.digest('hex')}`;
}

async function checkPieces(bytes: Uint8Array, compression: Compression): Promise<string> {
  const whole = await unpack(bytes, compression, 2 ** 20);
  // A few pieces, because each is a round trip to zlib's threads.
  const inParts = await unpack(bytes, compression, 1 + Math.floor(bytes.length / 9));
  if (inParts !== whole) throw new Finding(`in other pieces it unpacks to ${inParts} and not ${whole}`);
  return whole;
}

const shared = { refusals: ['LAYER_INVALID', 'LIMIT_EXCEEDED'], maxMs: 3000, maxMemoryBytes: 64 * 2 ** 20 } as const;

export const layerGzipTarget: FuzzTarget = {
  ...shared,
  name: 'layer-gzip',
  generate: (random) => several(random, () => gzipSync(plainOf(random), { level: random.below(10) })),
  repair: repairGzip,
  async check(bytes) {
    const read = await checkPieces(bytes, 'gzip');
    if (read === 'too much') return;
    // zlib itself reads all members as well; what it takes for the end is none for us, so it may have read less, not other.
    const plain = bytes.length === 0 ? Buffer.alloc(0) : gunzipSync(bytes, { maxOutputLength: MAX_BYTES });
    const known = `${plain.length} ${createHash('sha256').update(plain).digest('hex')}`;
    if (read !== known) throw new Finding(`it unpacks to ${read}, and with zlib to ${known}`);
  },
};

export const layerZstdTarget: FuzzTarget = {
  ...shared,
  name: 'layer-zstd',
  generate: (random) => several(random, () => zstdFrame(random)),
  async check(bytes) {
    await checkPieces(bytes, 'zstd');
  },
};
