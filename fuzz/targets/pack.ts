import {
  createMemoryRandomAccess,
  createPackBuilder,
  loadHashProvider,
  openChunk,
  packFrame,
  readPackTable,
} from '../../packages/cas/src/index.ts';
import { createZstdCodec } from '../../packages/cas/src/node/index.ts';
import {
  concatBytes,
  isDecantError,
  PAGE_BYTES,
  toHex,
  type ChunkFrame,
  type ChunkId,
} from '../../packages/core/src/index.ts';
import type { Random } from '../random.ts';
import { Finding, requireEqualBytes, type FuzzTarget } from '../target.ts';

const ROW_BYTES = 56;
const FOOTER_BYTES = 48;
const hash = await loadHashProvider();
const codec = createZstdCodec();

/** One to a few chunks of a few pages; some compress. */
function generate(random: Random): Uint8Array {
  const builder = createPackBuilder({ hash });
  const parts: Uint8Array[] = [];
  for (let count = random.chance(0.95) ? random.between(1, 4) : random.between(20, 60); count > 0; count--) {
    const plain = new Uint8Array(random.pick([1, 1, 2, 5]) * PAGE_BYTES);
    if (random.chance(0.5)) plain.set(random.bytes(plain.length));
    else plain.fill(random.below(256)).set(random.bytes(50), random.below(plain.length - 50));
    const id = toHex(hash.blake3(plain)) as ChunkId;
    parts.push(...builder.add({ id, plainBytes: plain.length, ...codec.encode(plain) }));
  }
  return concatBytes([...parts, builder.finish().bytes]);
}

/** Moves the table to where the footer says or the footer to the table, chains offsets, and makes the table's digest fit. */
function repair(bytes: Uint8Array<ArrayBuffer>, random: Random): void {
  const footer = bytes.length - FOOTER_BYTES;
  if (footer < ROW_BYTES) return;
  const view = new DataView(bytes.buffer);
  if (random.chance(0.7)) view.setUint32(footer + 12, 1, true);
  const count = Math.min(view.getUint32(footer + 8, true), Math.floor(footer / ROW_BYTES));
  const table = footer - count * ROW_BYTES;
  if (random.chance(0.7)) view.setBigUint64(footer, BigInt(table), true);
  if (random.chance(0.7)) {
    let offset = 48;
    for (let row = table; row < footer; row += ROW_BYTES) {
      if (random.chance(0.95)) view.setBigUint64(row + 32, BigInt(offset), true);
      // The last frame reaches to the table.
      if (row + ROW_BYTES === footer && random.chance(0.5)) view.setUint32(row + 40, Math.max(0, table - offset), true);
      offset += view.getUint32(row + 40, true);
    }
  }
  bytes.set(hash.blake3(bytes.subarray(table, footer)), footer + 16);
}

async function check(bytes: Uint8Array): Promise<void> {
  const source = createMemoryRandomAccess(bytes);
  const table = await readPackTable(source, { hash });
  const builder = createPackBuilder({ hash });
  const parts: Uint8Array[] = [];
  for (const row of table.rows()) {
    const frame = await packFrame(source, row);
    parts.push(...builder.add(frame));
    checkFrame(frame);
  }
  requireEqualBytes('the pack encoded again', concatBytes([...parts, builder.finish().bytes]), bytes);
}

/** A chunk is refused, or its bytes have its digest by another way to compute it. */
function checkFrame(frame: ChunkFrame): void {
  let plain: Uint8Array;
  try {
    plain = openChunk(frame, frame, { hash, codec });
  } catch (error) {
    if (isDecantError(error, 'CAS_ZSTD_INVALID') || isDecantError(error, 'CAS_CHUNK_MISMATCH')) return;
    throw error;
  }
  const stream = hash.createBlake3();
  stream.update(plain);
  if (plain.length !== frame.plainBytes || toHex(stream.digest()) !== frame.id) {
    throw new Finding(`chunk ${frame.id} was opened with other bytes`);
  }
}

export const packTarget: FuzzTarget = {
  name: 'pack',
  refusals: ['CAS_PACK_INVALID'],
  maxMs: 2000,
  maxMemoryBytes: 32 * 2 ** 20,
  generate,
  repair,
  check,
};
