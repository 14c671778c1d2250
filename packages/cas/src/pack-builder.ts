import { fromHex, toHex, type ChunkFrame } from '@decant/core';

import { GrowingBytes, viewOf, writeU64 } from './bytes/bytes-reader.ts';
import type { HashProvider } from './hash/hash-provider.ts';
import {
  frameProblem,
  MAX_PACK_BYTES,
  MAX_PACK_CHUNKS,
  PACK_FOOTER_BYTES,
  PACK_HEAD_BYTES,
  PACK_MAGIC,
  PACK_ROW_BYTES,
  PACK_VERSION,
  writeRow,
} from './pack/pack-layout.ts';
import { packTable, type PackTable } from './pack/pack-table.ts';

export interface FinishedPack {
  /** Table and footer: the last bytes of the pack. */
  readonly bytes: Uint8Array;
  readonly table: PackTable;
  readonly sizeBytes: number;
  /** BLAKE3-256 of what {@link PackBuilderOptions.digestOf} says, 64 hexadecimal digits. */
  readonly digest: string;
}

/** Writes one pack front to back: every call returns the bytes to append, so that nothing is kept but the table. */
export interface PackBuilder {
  readonly count: number;
  /** Bytes the pack would have if it were finished now. */
  readonly sizeBytes: number;
  /** Whether a chunk of so many stored bytes still fits. */
  fits(storedBytes: number): boolean;
  /** Bytes to append for one more chunk, `frame.stored` itself among them. @throws RangeError when it does not fit or its lengths are impossible. */
  add(frame: ChunkFrame): Uint8Array[];
  /** `add` for a chunk that is named by the 32 bytes of its digest. */
  addDigest(digest: Uint8Array, frame: Omit<ChunkFrame, 'id'>): Uint8Array[];
  /** The end of the pack. @throws RangeError when it holds nothing or is finished. */
  finish(): FinishedPack;
}

export interface PackBuilderOptions {
  readonly hash: HashProvider;
  /** Most bytes of the pack, at most (and by default) 64 MiB. */
  readonly maxBytes?: number | undefined;
  /** Most chunks, at most (and by default) 65,536. */
  readonly maxChunks?: number | undefined;
  /**
   * What the pack is named by: all its bytes (default), as object keys are, or its table, which has every chunk id in it
   * and spares hashing each stored byte once more.
   */
  readonly digestOf?: 'pack' | 'table' | undefined;
}

export function createPackBuilder(options: PackBuilderOptions): PackBuilder {
  const { hash, maxBytes = MAX_PACK_BYTES, maxChunks = MAX_PACK_CHUNKS, digestOf = 'pack' } = options;
  if (maxBytes > MAX_PACK_BYTES || maxChunks > MAX_PACK_CHUNKS) throw new RangeError('no pack may be so large');
  const rows = new GrowingBytes();
  const whole = digestOf === 'pack' ? hash.createBlake3() : undefined;
  let end = PACK_HEAD_BYTES;
  let count = 0;
  let finished = false;
  const sizeWith = (chunks: number, storedBytes: number) =>
    end + storedBytes + chunks * PACK_ROW_BYTES + PACK_FOOTER_BYTES;
  const fits = (storedBytes: number) => count < maxChunks && sizeWith(count + 1, storedBytes) <= maxBytes;
  const append = (parts: Uint8Array[]) => {
    for (const part of parts) whole?.update(part);
    return parts;
  };

  const addDigest = (digest: Uint8Array, { encoding, plainBytes, stored }: Omit<ChunkFrame, 'id'>) => {
    const problem = frameProblem(stored.length, plainBytes, encoding);
    if (problem !== undefined) throw new RangeError(problem);
    if (finished || !fits(stored.length)) throw new RangeError('the chunk does not fit into this pack');
    const row = { offset: end, storedBytes: stored.length, plainBytes, encoding };
    writeRow(rows.extend(PACK_ROW_BYTES), digest, row);
    const parts = count === 0 ? [packHead(), stored] : [stored];
    end += stored.length;
    count++;
    return append(parts);
  };

  return {
    get count() {
      return count;
    },
    get sizeBytes() {
      return sizeWith(count, 0);
    },
    fits,
    add: (frame) => addDigest(fromHex(frame.id), frame),
    addDigest,
    finish() {
      if (finished || count === 0) throw new RangeError('a pack is finished once and holds at least one chunk');
      finished = true;
      const table = rows.bytes();
      const bytes = new Uint8Array(table.length + PACK_FOOTER_BYTES);
      bytes.set(table);
      const footer = bytes.subarray(table.length);
      const view = viewOf(footer);
      writeU64(view, 0, end);
      view.setUint32(8, count, true);
      view.setUint32(12, PACK_VERSION, true);
      const tableDigest = hash.blake3(table);
      footer.set(tableDigest, 16);
      append([bytes]);
      return {
        bytes,
        table: packTable(bytes.subarray(0, table.length), end + bytes.length),
        sizeBytes: end + bytes.length,
        digest: toHex(whole?.digest() ?? tableDigest),
      };
    },
  };
}

function packHead(): Uint8Array {
  const head = new Uint8Array(PACK_HEAD_BYTES);
  head.set(new TextEncoder().encode(PACK_MAGIC));
  return head;
}
