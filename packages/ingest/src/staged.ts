import { packFrame, readPackTable, type PackRow, type RandomAccess } from '@decant/cas';
import {
  concatBytes,
  DecantError,
  isDecantError,
  MIB,
  STAGED,
  type ChunkFrame,
  type ChunkId,
  type ObjectStore,
} from '@decant/core';

import type { IngestContext } from './admission.ts';
import { refused } from './refuse.ts';

/** Most staging packs of one build. */
const MAX_PACKS = 65_536;
/** Bytes read from a pack at a time when its frames are read in order. */
const READ_AHEAD_BYTES = 4 * MIB;

/** The chunks a build has staged: where each lies, and how to read it. Nothing is verified here. */
export interface StagedChunks {
  readonly size: number;
  /** Stored bytes of all staged chunks. */
  readonly storedBytes: number;
  has(id: ChunkId): boolean;
  /** Plain length as the pack declares it. */
  plainBytes(id: ChunkId): number | undefined;
  read(id: ChunkId): Promise<ChunkFrame>;
  ids(): Iterable<ChunkId>;
}

/** Reads the tables of every staged pack. @throws INGEST_REFUSED when one is broken or a chunk is staged twice. */
export async function openStagedChunks(context: IngestContext): Promise<StagedChunks> {
  const { store, stagingPrefix, hash, signal } = context;
  const rows = new Map<ChunkId, { pack: PackReader; row: PackRow }>();
  let storedBytes = 0;
  let packs = 0;
  for await (const object of store.list(`${stagingPrefix}/${STAGED.packs}/`, { signal })) {
    if (++packs > MAX_PACKS) throw refused(`there are more than ${MAX_PACKS} packs.`);
    const pack = new PackReader(store, object.key, object.sizeBytes);
    const name = object.key.slice(stagingPrefix.length + 1);
    const table = await readPackTable(pack, { hash, signal }).catch((error: unknown) => {
      throw isDecantError(error, 'CAS_PACK_INVALID')
        ? refused(`${name}: ${error.message}`, { object: name }, error)
        : error;
    });
    for (const row of table.rows()) {
      if (rows.has(row.id)) throw refused(`chunk ${row.id} is staged twice.`, { chunk: row.id });
      rows.set(row.id, { pack, row });
      storedBytes += row.storedBytes;
    }
  }
  return {
    size: rows.size,
    storedBytes,
    has: (id) => rows.has(id),
    plainBytes: (id) => rows.get(id)?.row.plainBytes,
    ids: () => rows.keys(),
    read(id) {
      const found = rows.get(id);
      if (found === undefined) throw new DecantError('CAS_CHUNK_MISSING', `Chunk ${id} is not staged.`);
      return packFrame(found.pack, found.row, { signal });
    },
  };
}

/** A staged pack with one window of read-ahead, for frames that are asked for in order. */
class PackReader implements RandomAccess {
  readonly sizeBytes: number;
  readonly #store: ObjectStore;
  readonly #key: string;
  #window: { offset: number; bytes: Uint8Array } = { offset: 0, bytes: new Uint8Array(0) };

  constructor(store: ObjectStore, key: string, sizeBytes: number) {
    this.#store = store;
    this.#key = key;
    this.sizeBytes = sizeBytes;
  }

  async read(
    offset: number,
    lengthBytes: number,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Uint8Array> {
    if (offset < 0 || offset + lengthBytes > this.sizeBytes) throw new RangeError('outside the pack');
    const window = this.#window;
    const start = offset - window.offset;
    if (start >= 0 && start + lengthBytes <= window.bytes.length)
      return window.bytes.subarray(start, start + lengthBytes);
    const ahead = Math.min(this.sizeBytes - offset, Math.max(lengthBytes, READ_AHEAD_BYTES));
    const parts: Uint8Array[] = [];
    for await (const piece of this.#store.stream(this.#key, { range: { offset, lengthBytes: ahead }, signal })) {
      parts.push(piece);
    }
    const bytes = concatBytes(parts);
    if (bytes.length !== ahead) throw refused('a staged pack became shorter while it was read.');
    this.#window = { offset, bytes };
    return bytes.subarray(0, lengthBytes);
  }
}
