import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import {
  DecantError,
  errnoOf,
  isDecantError,
  KIB,
  MIB,
  type ChunkFrame,
  type ChunkId,
  type ChunkSource,
} from '@decant/core';

import { GrowingBytes } from '../bytes/bytes-reader.ts';
import type { HashProvider } from '../hash/hash-provider.ts';
import { IdTable } from '../bytes/id-table.ts';
import { lastAtMost } from '../manifest/manifest-head.ts';
import { PACK_ROW_BYTES, readRow, type PackRow } from '../pack/pack-layout.ts';
import { readPackTable } from '../pack/pack-table.ts';
import { openFileRandomAccess } from './file-random-access.ts';

/** Most bytes of one read for several chunks, and unwanted bytes that are read rather than starting another. */
const READ_BYTES = MIB;
const GAP_BYTES = 64 * KIB;

/** A chunk source over a directory of packs, with the ids of all that is in it. */
export interface PackDirectory extends ChunkSource {
  /** Different chunks. */
  readonly chunkCount: number;
  /** Bytes of all packs. */
  readonly sizeBytes: number;
  /** Every chunk's 32-byte id at the head of a row of 56 bytes; a chunk that two packs hold comes twice. */
  readonly rows: Uint8Array;
}

/** The pack files of a store: `<64 digits>.pack` in its folder `packs`. */
export function packsFolder(store: string): string {
  return join(store, 'packs');
}

/**
 * Opens a directory of packs as `makeFromFile` writes it. The tables at the ends of the packs are its index, so that it is
 * never behind what is there, and several processes may add packs. Reads all tables: about 80 bytes of memory a chunk. A
 * store that does not exist is empty.
 * @throws CAS_PACK_INVALID with the name of the pack, CAS_FILE_UNREADABLE when the store is no directory or may not be read.
 */
export async function openPackDirectory(
  store: string,
  options: { readonly hash: HashProvider; readonly signal?: AbortSignal | undefined },
): Promise<PackDirectory> {
  const { hash, signal } = options;
  const folder = packsFolder(store);
  const names = (await readdir(folder).catch((error: unknown) => nothing(store, error)))
    .filter((name) => /^[0-9a-f]{64}\.pack$/.test(name))
    .sort();
  const growing = new GrowingBytes();
  const starts = new Float64Array(names.length);
  let sizeBytes = 0;
  for (const [i, name] of names.entries()) {
    starts[i] = growing.length / PACK_ROW_BYTES;
    await using file = await openFileRandomAccess(join(folder, name));
    const table = await readPackTable(file, { hash, signal }).catch((error: unknown) => {
      if (!isDecantError(error, 'CAS_PACK_INVALID')) throw error;
      throw new DecantError('CAS_PACK_INVALID', `Pack ${name} is damaged: ${error.message}`, {
        hint: 'Remove the file; what only it held has to be made again.',
        details: { ...error.details, file: join(folder, name) },
        cause: error,
      });
    });
    growing.extend(table.bytes.length).set(table.bytes);
    sizeBytes += file.sizeBytes;
  }
  const rows = growing.bytes();
  const ids = new IdTable(rows, 0, PACK_ROW_BYTES, rows.length / PACK_ROW_BYTES);
  for (let row = 0; row < rows.length / PACK_ROW_BYTES; row++) ids.add(row);

  const lookUp = (id: ChunkId): PackRow & { readonly pack: number } => {
    const row = ids.find(id);
    if (row === undefined) {
      throw new DecantError('CAS_CHUNK_MISSING', `The store has no chunk ${id}.`, { details: { chunk: id, store } });
    }
    return { ...readRow(rows, row * PACK_ROW_BYTES), pack: lastAtMost(starts, names.length, row) };
  };

  return {
    chunkCount: ids.size,
    sizeBytes,
    rows,
    async has(wanted, { signal } = {}) {
      signal?.throwIfAborted();
      return new Set(wanted.filter((id) => ids.find(id) !== undefined));
    },
    async *get(wanted, { signal } = {}) {
      const sorted = [...new Set(wanted)].map(lookUp).sort((a, b) => a.pack - b.pack || a.offset - b.offset);
      for (let from = 0; from < sorted.length;) {
        signal?.throwIfAborted();
        const group = firstGroup(sorted, from);
        from += group.length;
        yield* readGroup(join(folder, names[group[0]!.pack]!), group, signal);
      }
    },
  };
}

/** The longest run of rows from `from` on that one read gets. */
function firstGroup<T extends PackRow & { readonly pack: number }>(sorted: readonly T[], from: number): T[] {
  const first = sorted[from]!;
  const group = [first];
  for (let i = from + 1; i < sorted.length; i++) {
    const row = sorted[i]!;
    const end = group.at(-1)!.offset + group.at(-1)!.storedBytes;
    const near = row.pack === first.pack && row.offset - end <= GAP_BYTES;
    if (!near || row.offset + row.storedBytes - first.offset > READ_BYTES) break;
    group.push(row);
  }
  return group;
}

async function* readGroup(
  path: string,
  group: readonly PackRow[],
  signal: AbortSignal | undefined,
): AsyncGenerator<ChunkFrame> {
  const start = group[0]!.offset;
  const last = group.at(-1)!;
  await using file = await openFileRandomAccess(path);
  const bytes = await file.read(start, last.offset + last.storedBytes - start, { signal });
  for (const { id, offset, storedBytes, plainBytes, encoding } of group) {
    yield { id, encoding, plainBytes, stored: bytes.subarray(offset - start, offset - start + storedBytes) };
  }
}

/** No names where there is no store yet. @throws CAS_FILE_UNREADABLE */
function nothing(store: string, cause: unknown): string[] {
  const errno = errnoOf(cause);
  if (errno === 'ENOENT') return [];
  const what = errno === 'ENOTDIR' ? 'is not a directory of packs' : 'cannot be read';
  throw new DecantError('CAS_FILE_UNREADABLE', `The store ${JSON.stringify(store)} ${what}.`, { cause });
}
