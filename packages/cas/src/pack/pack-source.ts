import {
  DecantError,
  KIB,
  MIB,
  PAGE_BYTES,
  type CallOptions,
  type ChunkFrame,
  type ChunkId,
  type ChunkSource,
} from '@decant/core';

import type { Locator, LocatorRecord } from './locator.ts';
import type { Manifest } from '../manifest/manifest.ts';

/** Unwanted bytes that are read rather than starting another request. */
const MAX_GAP_BYTES = 64 * KIB;

export interface PackSourceOptions {
  readonly manifest: Manifest;
  /** Of the same image. */
  readonly locator: Locator;
  /** Exactly `lengthBytes` bytes of a pack of the locator. */
  readonly readRange: (
    packIndex: number,
    offset: number,
    lengthBytes: number,
    options: CallOptions,
  ) => Promise<Uint8Array>;
  /** Most bytes of one request for several chunks; default 1 MiB. A larger chunk is read alone. */
  readonly coalesceBytes?: number | undefined;
}

interface Wanted {
  readonly id: ChunkId;
  readonly record: LocatorRecord;
}

/**
 * The chunks of an image in its packs. Chunks that lie within 64 KiB of each other in a pack come in one request,
 * in pack order; requests follow one another, and callers who want several at once make several calls. The same
 * chunk asked for by two calls is read twice.
 * @throws CAS_LOCATOR_INVALID when the locator is not the image's, CAS_PACK_INVALID when a pack is encrypted.
 */
export function createPackSource(options: PackSourceOptions): ChunkSource {
  const { manifest, locator, readRange, coalesceBytes = MIB } = options;
  if (locator.imageId !== manifest.id || locator.recordCount !== manifest.entryCount) {
    throw new DecantError('CAS_LOCATOR_INVALID', `The locator is not that of image ${manifest.id}.`);
  }
  if (locator.packs.some(({ nonce }) => nonce.some((byte) => byte !== 0))) {
    throw new DecantError('CAS_PACK_INVALID', 'A pack of the image is encrypted, which this version cannot read.');
  }

  const lookUp = (id: ChunkId): Wanted => {
    const index = manifest.indexOf(id);
    if (index === undefined) {
      throw new DecantError('CAS_CHUNK_MISSING', `Image ${manifest.id} has no chunk ${id}.`, {
        details: { chunk: id },
      });
    }
    const record = locator.record(index);
    if (record === null || record.plainBytes !== manifest.entry(index).pages * PAGE_BYTES) {
      throw new DecantError('CAS_LOCATOR_INVALID', `Record ${index} of the locator contradicts the manifest.`);
    }
    return { id, record };
  };

  return {
    has: (ids) => Promise.resolve(new Set(ids.filter((id) => manifest.indexOf(id) !== undefined))),
    async *get(ids, { signal } = {}) {
      const wanted = [...new Set(ids)].map(lookUp);
      wanted.sort((a, b) => a.record.pack - b.record.pack || a.record.offset - b.record.offset);
      for (const group of groups(wanted, coalesceBytes)) {
        signal?.throwIfAborted();
        yield* readGroup(group, signal);
      }
    },
  };

  async function* readGroup(group: readonly Wanted[], signal: AbortSignal | undefined): AsyncGenerator<ChunkFrame> {
    const { pack, offset } = group[0]!.record;
    const lengthBytes = endOf(group.at(-1)!.record) - offset;
    const bytes = await readRange(pack, offset, lengthBytes, { signal });
    if (bytes.length !== lengthBytes) {
      const { key } = locator.packs[pack]!;
      throw new DecantError('CAS_CHUNK_MISSING', `Pack ${key} gave ${bytes.length} bytes of ${lengthBytes}.`, {
        details: { pack: key, offset, lengthBytes },
      });
    }
    for (const { id, record } of group) {
      const at = record.offset - offset;
      const { encoding, plainBytes, storedBytes } = record;
      yield { id, encoding, plainBytes, stored: bytes.subarray(at, at + storedBytes) };
    }
  }
}

function endOf(record: LocatorRecord): number {
  return record.offset + record.storedBytes;
}

function* groups(sorted: readonly Wanted[], coalesceBytes: number): Generator<Wanted[]> {
  let group: Wanted[] = [];
  for (const next of sorted) {
    const last = group.at(-1)?.record;
    const joins =
      last !== undefined &&
      last.pack === next.record.pack &&
      next.record.offset >= endOf(last) &&
      next.record.offset - endOf(last) <= MAX_GAP_BYTES &&
      endOf(next.record) - group[0]!.record.offset <= coalesceBytes;
    if (!joins && group.length > 0) {
      yield group;
      group = [];
    }
    group.push(next);
  }
  if (group.length > 0) yield group;
}
