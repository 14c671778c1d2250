import { packFrame, readPackTable, type Manifest, type PackTable, type RandomAccess } from '@decant/cas';
import { DecantError, isDecantError, MIB, releaseBytes, STAGED, type ChunkFrame } from '@decant/core';

import type { IngestContext } from './admission.ts';
import { refused } from './refuse.ts';

/** Bytes read from a pack at a time when its frames are read in order. */
const READ_AHEAD_BYTES = 4 * MIB;

/**
 * The chunks a build has staged, by the number of the manifest entry that has them first: where each lies, and
 * how to read it. Nothing is verified here. It keeps 62 bytes a chunk and two windows of read-ahead.
 */
export interface StagedChunks {
  /** Stored bytes of all staged chunks. */
  readonly storedBytes: number;
  has(entry: number): boolean;
  /** Plain length as the pack declares it. */
  plainBytes(entry: number): number | undefined;
  /** The frame, in bytes of its own. */
  read(entry: number): Promise<ChunkFrame>;
  /** The same, for whoever reads every frame in image order: with a window that other reads do not move. */
  readInOrder(entry: number): Promise<ChunkFrame>;
}

/**
 * Reads the tables of every staged pack. Every chunk must be one of the manifest and be staged once, which bounds
 * what a build can make this keep.
 * @throws INGEST_REFUSED when a pack is broken, a chunk is not the image's or is staged twice.
 */
export async function openStagedChunks(manifest: Manifest, context: IngestContext): Promise<StagedChunks> {
  const { store, stagingPrefix, hash, signal } = context;
  const window = new ReadAhead(context);
  const orderedWindow = new ReadAhead(context);
  const packs: { readonly source: RandomAccess; readonly ordered: RandomAccess; readonly table: PackTable }[] = [];
  /** Number of the pack + 1, or 0, and the row in its table: a pack has at most 65,536. */
  const packOf = new Uint32Array(manifest.entryCount);
  const rowOf = new Uint16Array(manifest.entryCount);
  let storedBytes = 0;
  for await (const { key, sizeBytes } of store.list(`${stagingPrefix}/${STAGED.packs}/`, { signal })) {
    const name = key.slice(stagingPrefix.length + 1);
    const direct: RandomAccess = {
      sizeBytes,
      read: (offset, lengthBytes) => readRange(context, key, offset, lengthBytes),
    };
    const table = await readPackTable(direct, { hash, signal }).catch((error: unknown) => {
      throw isDecantError(error, 'CAS_PACK_INVALID')
        ? refused(`${name}: ${error.message}`, { object: name }, error)
        : error;
    });
    packs.push({ source: window.of(key, sizeBytes), ordered: orderedWindow.of(key, sizeBytes), table });
    let row = 0;
    for (const { id, storedBytes: bytes } of table.rows()) {
      const entry = manifest.indexOf(id);
      if (entry === undefined) throw refused(`chunk ${id} is staged but not in the manifest.`, { chunk: id });
      if (packOf[entry] !== 0) throw refused(`chunk ${id} is staged twice.`, { chunk: id });
      packOf[entry] = packs.length;
      rowOf[entry] = row++;
      storedBytes += bytes;
    }
  }
  const find = (entry: number) => {
    const pack = packs[(packOf[entry] ?? 0) - 1];
    if (pack === undefined) return undefined;
    return { source: pack.source, ordered: pack.ordered, row: pack.table.row(rowOf[entry]!) };
  };
  const staged = (entry: number) => {
    const found = find(entry);
    if (found === undefined) throw new DecantError('CAS_CHUNK_MISSING', 'A chunk was read that is not staged.');
    return found;
  };
  return {
    storedBytes,
    has: (entry) => packOf[entry] !== 0,
    plainBytes: (entry) => find(entry)?.row.plainBytes,
    async read(entry) {
      const { source, row } = staged(entry);
      return packFrame(source, row, { signal });
    },
    async readInOrder(entry) {
      const { ordered, row } = staged(entry);
      return packFrame(ordered, row, { signal });
    },
  };
}

/** Reads of staged packs through one window, which all packs share: frames are asked for in image order. */
class ReadAhead {
  readonly #context: IngestContext;
  #window: { readonly key: string; readonly offset: number; readonly bytes: Uint8Array } = {
    key: '',
    offset: 0,
    bytes: new Uint8Array(0),
  };

  constructor(context: IngestContext) {
    this.#context = context;
  }

  /** What is read is a copy. */
  of(key: string, sizeBytes: number): RandomAccess {
    return { sizeBytes, read: (offset, lengthBytes) => this.#read(key, sizeBytes, offset, lengthBytes) };
  }

  async #read(key: string, sizeBytes: number, offset: number, lengthBytes: number): Promise<Uint8Array> {
    if (!this.#holds(key, offset, lengthBytes)) {
      const ahead = Math.min(sizeBytes - offset, Math.max(lengthBytes, READ_AHEAD_BYTES));
      const bytes = await readRange(this.#context, key, offset, ahead);
      releaseBytes(this.#window.bytes);
      this.#window = { key, offset, bytes };
      return bytes.slice(0, lengthBytes);
    }
    const start = offset - this.#window.offset;
    return this.#window.bytes.slice(start, start + lengthBytes);
  }

  #holds(key: string, offset: number, lengthBytes: number): boolean {
    const start = offset - this.#window.offset;
    return this.#window.key === key && start >= 0 && start + lengthBytes <= this.#window.bytes.length;
  }
}

async function readRange(
  { store, signal }: IngestContext,
  key: string,
  offset: number,
  lengthBytes: number,
): Promise<Uint8Array> {
  try {
    return await store.get(key, { range: { offset, lengthBytes }, signal });
  } catch (error) {
    signal?.throwIfAborted();
    // Signed URLs live on for a while, so a builder can replace or lose what it staged at any time.
    if (error instanceof RangeError || isDecantError(error, 'OBJECT_NOT_FOUND')) {
      throw refused('a staged object changed while it was read.', {}, error);
    }
    throw error;
  }
}
