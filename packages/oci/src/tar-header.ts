import type { ByteString } from './tar-entry.ts';
import { tarError } from './tar-errors.ts';

export const BLOCK_BYTES = 512;

/*
 * A header block (POSIX.1-1988 ustar; GNU where it differs), offsets in bytes:
 *
 *     0 name 100      100 mode 8       108 uid 8        116 gid 8
 *   124 size 12       136 mtime 12     148 checksum 8   156 type 1
 *   157 linkname 100  257 magic 6      263 version 2    265 uname 32
 *   297 gname 32      329 devmajor 8   337 devminor 8
 *   ustar: 345 prefix 155 (star, which has "tar\0" at 508: 131)
 *   GNU:   345 atime 12, 357 ctime 12, 386 four sparse runs of 24 (offset 12, length 12),
 *          482 more sparse blocks follow 1, 483 real size 12
 *
 * A block of further GNU sparse runs: 0 twenty-one runs of 24, 504 more follow 1.
 */
const NAME = [0, 100] as const;
const MODE = [100, 8] as const;
const UID = [108, 8] as const;
const GID = [116, 8] as const;
const SIZE = [124, 12] as const;
const MTIME = [136, 12] as const;
const CHECKSUM = [148, 8] as const;
const TYPE = 156;
const LINK_NAME = [157, 100] as const;
const MAGIC = [257, 8] as const;
const DEV_MAJOR = [329, 8] as const;
const DEV_MINOR = [337, 8] as const;
const PREFIX = [345, 155] as const;
const STAR_PREFIX = [345, 131] as const;
const STAR_TRAILER = 508;
const SPARSE_RUNS = 386;
const SPARSE_MORE = 482;
const REAL_SIZE = [483, 12] as const;
const RUN_BYTES = 24;
const MORE_RUNS = 21;
const MORE_FOLLOW = 504;

type Field = readonly [offset: number, length: number];

export interface RawHeader {
  readonly name: ByteString;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  /** The type character; NUL is an old regular file. */
  readonly type: string;
  readonly linkName: ByteString;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly gnu: boolean;
}

/**
 * Reads one header block that is not all zeros.
 * @throws LAYER_INVALID with the byte offset of the field at fault.
 */
export function parseHeader(block: Uint8Array, blockOffset: number): RawHeader {
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.length);
  const name = text(bytes, NAME);
  const number = (field: Field, what: string): number => {
    const value = parseNumber(bytes, field);
    if (value === undefined) throw tarError(`the ${what} is not a number`, blockOffset + field[0], name);
    return value;
  };
  const positive = (field: Field, what: string): number => {
    const value = number(field, what);
    if (value < 0) throw tarError(`the ${what} is negative`, blockOffset + field[0], name);
    return value;
  };
  if (!checksumHolds(bytes)) throw tarError('the checksum of the header is wrong', blockOffset + CHECKSUM[0]);
  const magic = bytes.toString('latin1', MAGIC[0], MAGIC[0] + MAGIC[1]);
  const ustar = magic.startsWith('ustar\0');
  const gnu = magic === 'ustar  \0';
  const type = String.fromCharCode(bytes[TYPE]!);
  const device = type === '3' || type === '4';
  const star = ustar && bytes.toString('latin1', STAR_TRAILER, STAR_TRAILER + 4) === 'tar\0';
  const prefix = ustar ? text(bytes, star ? STAR_PREFIX : PREFIX) : '';
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    mode: positive(MODE, 'mode'),
    uid: positive(UID, 'uid'),
    gid: positive(GID, 'gid'),
    size: positive(SIZE, 'size'),
    mtime: number(MTIME, 'modification time'),
    type,
    linkName: text(bytes, LINK_NAME),
    devMajor: device ? positive(DEV_MAJOR, 'device major number') : 0,
    devMinor: device ? positive(DEV_MINOR, 'device minor number') : 0,
    gnu,
  };
}

/** The sparse part of an old GNU header: its runs as offset, length, …, the size of the file, whether blocks follow. */
export function parseGnuSparse(
  block: Uint8Array,
  blockOffset: number,
  name: ByteString,
): { runs: number[]; realSize: number; more: boolean } {
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.length);
  const realSize = parseNumber(bytes, REAL_SIZE);
  if (realSize === undefined || realSize < 0) {
    throw tarError('the real size of a sparse file is not a size', blockOffset + REAL_SIZE[0], name);
  }
  const runs = readRuns(bytes, SPARSE_RUNS, 4, blockOffset, name);
  return { runs, realSize, more: bytes[SPARSE_MORE] === 1 };
}

/** A block of further old GNU sparse runs. */
export function parseGnuSparseBlock(
  block: Uint8Array,
  blockOffset: number,
  name: ByteString,
): { runs: number[]; more: boolean } {
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.length);
  return { runs: readRuns(bytes, 0, MORE_RUNS, blockOffset, name), more: bytes[MORE_FOLLOW] === 1 };
}

function readRuns(bytes: Buffer, start: number, count: number, blockOffset: number, name: ByteString): number[] {
  const runs: number[] = [];
  for (let i = 0; i < count; i++) {
    const at = start + i * RUN_BYTES;
    // An unused place begins with a NUL; numbers are written with digits or with the high bit set.
    if (bytes[at] === 0) break;
    const offset = parseNumber(bytes, [at, 12]);
    const length = parseNumber(bytes, [at + 12, 12]);
    if (offset === undefined || length === undefined || offset < 0 || length < 0) {
      throw tarError('a sparse run is not two numbers', blockOffset + at, name);
    }
    runs.push(offset, length);
  }
  return runs;
}

export function isZeroBlock(block: Uint8Array): boolean {
  for (const byte of block) if (byte !== 0) return false;
  return true;
}

function text(bytes: Buffer, [offset, length]: Field): ByteString {
  const end = bytes.indexOf(0, offset);
  return bytes.toString('latin1', offset, end === -1 || end > offset + length ? offset + length : end);
}

/** Octal digits between blanks, or GNU base-256; undefined when it is neither or no safe integer. Blank is 0. */
function parseNumber(bytes: Buffer, [offset, length]: Field): number | undefined {
  const first = bytes[offset]!;
  if ((first & 0x80) !== 0) return parseBase256(bytes, offset, length);
  let start = offset;
  let end = offset + length;
  while (start < end && isBlank(bytes[start]!)) start++;
  while (end > start && isBlank(bytes[end - 1]!)) end--;
  let value = 0;
  for (let i = start; i < end; i++) {
    // What follows a NUL is left over from an earlier use of the buffer in old writers.
    if (bytes[i] === 0) break;
    const digit = bytes[i]! - 0x30;
    if (digit < 0 || digit > 7) return undefined;
    value = value * 8 + digit;
  }
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Two's complement, big-endian; the top bit only marks the form, the next one is the sign. */
function parseBase256(bytes: Buffer, offset: number, length: number): number | undefined {
  const negative = (bytes[offset]! & 0x40) !== 0;
  const flip = negative ? 0xff : 0;
  let value = 0;
  for (let i = 0; i < length; i++) {
    let byte = bytes[offset + i]! ^ flip;
    if (i === 0) byte &= 0x7f;
    value = value * 256 + byte;
    if (!Number.isSafeInteger(value)) return undefined;
  }
  return negative ? -value - 1 : value;
}

const isBlank = (byte: number) => byte === 0x20 || byte === 0;

/** The sum of all bytes with the checksum field read as blanks; old writers summed signed bytes. */
function checksumHolds(bytes: Buffer): boolean {
  const declared = parseNumber(bytes, CHECKSUM);
  let unsigned = 0;
  let high = 0;
  for (let i = 0; i < BLOCK_BYTES; i++) {
    const inside = i >= CHECKSUM[0] && i < CHECKSUM[0] + CHECKSUM[1];
    const byte = inside ? 0x20 : bytes[i]!;
    unsigned += byte;
    if (byte > 0x7f) high++;
  }
  return declared === unsigned || declared === unsigned - 256 * high;
}
