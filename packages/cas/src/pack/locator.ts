import { fromHex, toHex, type ChunkEncoding, type ImageId } from '@decant/core';

import { firstNonZero, GrowingBytes, invalid, readU64, viewOf, writeU64 } from '../bytes/bytes-reader.ts';
import { requireIndex } from '../manifest/manifest-head.ts';
import { ENCODINGS, frameProblem, MAX_PACK_BYTES, PACK_HEAD_BYTES } from './pack-layout.ts';

/*
 * Locator, version 1. All integers little-endian.
 *
 *     head       0  magic "DCNTLOC1"
 *                8  u32 version = 1
 *               12  u32 packs
 *               16  u64 records
 *               24  32 bytes image id (its digits)
 *     per pack   0  u16 key length
 *                2  object key, UTF-8
 *                   32 bytes pack nonce, or zeros
 *     per entry  0  u32 pack number       all zeros for a hole
 *                4  u64 offset
 *               12  u32 stored length
 *               16  u32 plain length
 *               20  u8 encoding (0 raw, 1 zstd)
 *               21  3 zeros
 */
const MAGIC = 'DCNTLOC1';
const VERSION = 1;
const HEAD_BYTES = 56;
const NONCE_BYTES = 32;
const RECORD_BYTES = 24;
const MAX_KEY_BYTES = 1024;

export interface LocatorPack {
  /** The full object key, 1 to 1,024 bytes. */
  readonly key: string;
  /** 32 bytes; zeros for a pack that is not encrypted. */
  readonly nonce: Uint8Array;
}

/** Where the chunk of one manifest entry lies. */
export interface LocatorRecord {
  /** Index into the locator's packs. */
  readonly pack: number;
  readonly offset: number;
  readonly storedBytes: number;
  readonly plainBytes: number;
  readonly encoding: ChunkEncoding;
}

/** Where an image's chunks are: one record for every entry of its manifest. It keeps 24 bytes a record. */
export interface Locator {
  readonly imageId: ImageId;
  readonly packs: readonly LocatorPack[];
  readonly recordCount: number;
  /** Null for a hole. @throws RangeError when there is no such record. */
  record(index: number): LocatorRecord | null;
  /** The locator as it is stored; not to be written to. */
  readonly bytes: Uint8Array;
}

export interface LocatorLimits {
  /** Most bytes of the whole locator; default 64 MiB. */
  readonly maxBytes?: number | undefined;
  /** Most packs; default 65,536. */
  readonly maxPacks?: number | undefined;
}

const DEFAULT_LIMITS = { maxBytes: 64 * 2 ** 20, maxPacks: 65_536 } as const;

/** The bytes of a locator. @throws CAS_LOCATOR_INVALID when a part breaks the format. */
export function encodeLocator(parts: {
  readonly imageId: ImageId;
  readonly packs: readonly { readonly key: string; readonly nonce?: Uint8Array | undefined }[];
  readonly records: Iterable<LocatorRecord | null>;
}): Uint8Array {
  const out = new GrowingBytes();
  out.extend(HEAD_BYTES);
  for (const { key, nonce } of parts.packs) {
    const keyBytes = new TextEncoder().encode(key);
    if (keyBytes.length > MAX_KEY_BYTES) throw bad(out.length, 'a key is longer than 1,024 bytes');
    const pack = out.extend(2 + keyBytes.length + NONCE_BYTES);
    viewOf(pack).setUint16(0, keyBytes.length, true);
    pack.set(keyBytes, 2);
    if (nonce !== undefined) {
      if (nonce.length !== NONCE_BYTES) throw bad(out.length - NONCE_BYTES, 'a nonce does not have 32 bytes');
      pack.set(nonce, 2 + keyBytes.length);
    }
  }
  let records = 0;
  for (const record of parts.records) {
    records++;
    const bytes = out.extend(RECORD_BYTES);
    if (record === null) continue;
    const view = viewOf(bytes);
    view.setUint32(0, record.pack, true);
    writeU64(view, 4, record.offset);
    view.setUint32(12, record.storedBytes, true);
    view.setUint32(16, record.plainBytes, true);
    bytes[20] = ENCODINGS.indexOf(record.encoding);
  }
  const bytes = out.bytes();
  const view = viewOf(bytes);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(8, VERSION, true);
  view.setUint32(12, parts.packs.length, true);
  writeU64(view, 16, records);
  bytes.set(fromHex(digitsOf(parts.imageId)), 24);
  parseLocator(bytes, { maxBytes: Number.MAX_SAFE_INTEGER, maxPacks: Number.MAX_SAFE_INTEGER });
  return bytes;
}

/**
 * Reads and checks a locator; keeps `bytes`, which must not change afterwards.
 * @throws CAS_LOCATOR_INVALID with the byte offset.
 */
export function parseLocator(bytes: Uint8Array, limits: LocatorLimits = {}): Locator {
  const { maxBytes = DEFAULT_LIMITS.maxBytes, maxPacks = DEFAULT_LIMITS.maxPacks } = limits;
  if (bytes.length > maxBytes) throw bad(maxBytes, `it has ${bytes.length} bytes; ${maxBytes} are allowed`);
  if (bytes.length < HEAD_BYTES) throw bad(bytes.length, 'it ends inside the head');
  const view = viewOf(bytes);
  for (let i = 0; i < 8; i++) {
    if (bytes[i] !== MAGIC.charCodeAt(i)) throw bad(i, 'it does not begin with DCNTLOC1');
  }
  const version = view.getUint32(8, true);
  if (version !== VERSION) throw bad(8, `the version is ${version}, not ${VERSION}`);
  const packCount = view.getUint32(12, true);
  if (packCount > maxPacks) throw bad(12, `it has ${packCount} packs; ${maxPacks} are allowed`);
  const recordCount = readU64(view, 16);
  if (recordCount === undefined || recordCount > bytes.length / RECORD_BYTES) {
    throw bad(16, 'it has more records than bytes for them');
  }
  const { packs, end } = readPacks(bytes, view, packCount);
  if (bytes.length !== end + recordCount * RECORD_BYTES) {
    throw bad(end, `${bytes.length - end} bytes of records follow, not ${recordCount * RECORD_BYTES}`);
  }
  for (let i = 0; i < recordCount; i++) checkRecord(bytes, view, end + i * RECORD_BYTES, packCount);
  return {
    imageId: `cas-v1:${toHex(bytes.subarray(24, HEAD_BYTES))}` as ImageId,
    packs,
    recordCount,
    bytes,
    record(index) {
      requireIndex(index, recordCount);
      const at = end + index * RECORD_BYTES;
      const plainBytes = view.getUint32(at + 16, true);
      if (plainBytes === 0) return null;
      return {
        pack: view.getUint32(at, true),
        offset: readU64(view, at + 4) ?? 0,
        storedBytes: view.getUint32(at + 12, true),
        plainBytes,
        encoding: ENCODINGS[bytes[at + 20]!]!,
      };
    },
  };
}

function readPacks(bytes: Uint8Array, view: DataView, count: number): { packs: LocatorPack[]; end: number } {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const packs: LocatorPack[] = [];
  const seen = new Set<string>();
  let at = HEAD_BYTES;
  for (let i = 0; i < count; i++) {
    if (at + 2 > bytes.length) throw bad(bytes.length, 'it ends inside the packs');
    const keyBytes = view.getUint16(at, true);
    if (keyBytes < 1 || keyBytes > MAX_KEY_BYTES) throw bad(at, `a key has ${keyBytes} bytes, not 1 to 1,024`);
    const keyEnd = at + 2 + keyBytes;
    if (keyEnd + NONCE_BYTES > bytes.length) throw bad(bytes.length, 'it ends inside the packs');
    let key: string;
    try {
      key = decoder.decode(bytes.subarray(at + 2, keyEnd));
    } catch {
      throw bad(at + 2, 'a key is not UTF-8');
    }
    if (key.split('/').some((part) => part === '' || part === '.' || part === '..')) {
      throw bad(at + 2, 'a key has an empty, "." or ".." component');
    }
    if (seen.has(key)) throw bad(at + 2, 'a pack is listed twice');
    seen.add(key);
    packs.push({ key, nonce: bytes.slice(keyEnd, keyEnd + NONCE_BYTES) });
    at = keyEnd + NONCE_BYTES;
  }
  return { packs, end: at };
}

function checkRecord(bytes: Uint8Array, view: DataView, at: number, packCount: number): void {
  if (firstNonZero(bytes, at, at + RECORD_BYTES) === undefined) return;
  const pack = view.getUint32(at, true);
  if (pack >= packCount) throw bad(at, `a record names pack ${pack} of ${packCount}`);
  const encoding = ENCODINGS[bytes[at + 20]!];
  if (encoding === undefined) throw bad(at + 20, 'the encoding is unknown');
  const stray = firstNonZero(bytes, at + 21, at + RECORD_BYTES);
  if (stray !== undefined) throw bad(stray, 'a reserved byte is not zero');
  const storedBytes = view.getUint32(at + 12, true);
  const problem = frameProblem(storedBytes, view.getUint32(at + 16, true), encoding);
  if (problem !== undefined) throw bad(at + 12, problem);
  const offset = readU64(view, at + 4);
  if (offset === undefined || offset < PACK_HEAD_BYTES || offset + storedBytes > MAX_PACK_BYTES) {
    throw bad(at + 4, 'a record lies outside any pack');
  }
}

function digitsOf(imageId: ImageId): string {
  if (!imageId.startsWith('cas-v1:')) throw bad(24, 'only a cas-v1 image has a locator');
  return imageId.slice('cas-v1:'.length);
}

function bad(offset: number, problem: string): Error {
  return invalid('CAS_LOCATOR_INVALID', 'locator', offset, problem);
}
