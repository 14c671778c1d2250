import type { ByteString, TarXattr } from './tar-entry.ts';
import { tarError } from './tar-errors.ts';

/** Records of one or several PAX headers, as bytes; later ones win. */
export interface PaxRecords {
  readonly values: Map<ByteString, Uint8Array>;
  /** Pairs of the repeated sparse keys of PAX sparse 0.0: offset, length, … */
  readonly sparsePairs: number[];
}

/** Takes over what a further global header says; an empty value takes back what an earlier one said. */
export function addGlobalRecords(global: Map<ByteString, Uint8Array>, records: PaxRecords): void {
  for (const key of GLOBAL_KEYS) {
    const value = records.values.get(key);
    if (value?.length === 0) global.delete(key);
    else if (value !== undefined) global.set(key, value);
  }
}

/** What the records say about an entry; undefined where they say nothing. */
export interface PaxFacts {
  readonly path: ByteString | undefined;
  readonly linkPath: ByteString | undefined;
  readonly size: number | undefined;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  readonly mtime: { readonly seconds: number; readonly nanoseconds: number } | undefined;
  readonly xattrs: TarXattr[];
  readonly sparse: PaxSparse | undefined;
}

export interface PaxSparse {
  readonly version: '0.x' | '1.0';
  readonly name: ByteString | undefined;
  readonly realSize: number;
  /** Offset, length, … (empty for 1.0, whose map lies before the data). */
  readonly runs: number[];
}

const XATTR = 'SCHILY.xattr.';
/** Keys that say what an archive is made of; in a global header they would speak for every later entry. */
const STRUCTURE = /^(path|linkpath|size|GNU\.sparse\..*)$/;
/** What a global header may set; keeping no more than this also bounds the work it makes for every later entry. */
const GLOBAL_KEYS = ['uid', 'gid', 'mtime'];

/**
 * Reads the records `LENGTH KEY=VALUE\n` of a PAX header; LENGTH counts the whole record.
 * @throws LAYER_INVALID with the byte offset of the record at fault.
 */
export function parsePaxRecords(bytes: Uint8Array, offset: number, options: { readonly global: boolean }): PaxRecords {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const records: PaxRecords = { values: new Map(), sparsePairs: [] };
  for (let at = 0; at < buffer.length;) {
    const start = offset + at;
    const blank = buffer.indexOf(0x20, at);
    const digits = blank === -1 || blank - at > 8 ? '' : buffer.toString('latin1', at, blank);
    const length = /^[1-9][0-9]*$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    if (length === 0 || end > buffer.length || buffer[end - 1] !== 0x0a || end - 1 <= blank) {
      throw tarError('a PAX record has a wrong length or no line end', start);
    }
    const equals = buffer.indexOf(0x3d, blank + 1);
    if (equals === -1 || equals >= end || equals === blank + 1) throw tarError('a PAX record has no key', start);
    const key = buffer.toString('latin1', blank + 1, equals);
    if (key.includes('\0')) throw tarError('the key of a PAX record has a NUL', start);
    if (options.global && STRUCTURE.test(key)) {
      throw tarError(`a global PAX header sets ${key} for all later entries`, start);
    }
    // A copy: the values outlive the buffer they were read into.
    addRecord(records, key, new Uint8Array(buffer.subarray(equals + 1, end - 1)), start);
    at = end;
  }
  if (records.sparsePairs.length % 2 !== 0) throw tarError('a sparse run has an offset and no length', offset);
  return records;
}

function addRecord(records: PaxRecords, key: ByteString, value: Uint8Array, offset: number): void {
  const place = key === 'GNU.sparse.offset' ? 0 : key === 'GNU.sparse.numbytes' ? 1 : undefined;
  if (place === undefined) {
    records.values.set(key, value);
    return;
  }
  if (records.sparsePairs.length % 2 !== place) throw tarError('sparse offsets and lengths do not alternate', offset);
  records.sparsePairs.push(decimal(value, key, offset));
}

/** What global and own records together say; an empty own value takes the global one away. */
export function paxFacts(
  global: ReadonlyMap<ByteString, Uint8Array>,
  own: PaxRecords | undefined,
  offset: number,
): PaxFacts {
  const values = new Map(global);
  for (const [key, value] of own?.values ?? []) values.set(key, value);
  const name = (key: string): ByteString | undefined => {
    const value = values.get(key);
    if (value === undefined || value.length === 0) return undefined;
    if (value.includes(0)) throw tarError(`the PAX record ${key} has a NUL`, offset);
    return latin1(value);
  };
  const number = (key: string): number | undefined => {
    const value = values.get(key);
    return value === undefined || value.length === 0 ? undefined : decimal(value, key, offset);
  };
  const mtime = values.get('mtime');
  const xattrs: TarXattr[] = [];
  for (const [key, value] of values) {
    if (!key.startsWith(XATTR)) continue;
    if (key.length === XATTR.length) throw tarError('an extended attribute has no name', offset);
    xattrs.push({ name: key.slice(XATTR.length), value });
  }
  xattrs.sort((a, b) => (a.name < b.name ? -1 : 1));
  return {
    path: name('path'),
    linkPath: name('linkpath'),
    size: number('size'),
    uid: number('uid'),
    gid: number('gid'),
    mtime: mtime === undefined || mtime.length === 0 ? undefined : parseTime(latin1(mtime), offset),
    xattrs,
    sparse: sparseFacts(name, number, own?.sparsePairs ?? [], offset),
  };
}

function sparseFacts(
  name: (key: string) => ByteString | undefined,
  number: (key: string) => number | undefined,
  pairs: readonly number[],
  offset: number,
): PaxSparse | undefined {
  const major = number('GNU.sparse.major');
  const minor = number('GNU.sparse.minor');
  const map = name('GNU.sparse.map');
  const size = number('GNU.sparse.realsize') ?? number('GNU.sparse.size');
  const blocks = number('GNU.sparse.numblocks');
  const modern = major !== undefined || minor !== undefined;
  if (!modern && map === undefined && pairs.length === 0 && blocks === undefined) return undefined;
  if (size === undefined) throw tarError('a sparse file has no real size', offset);
  const sparseName = name('GNU.sparse.name');
  if (modern && major === 1 && minor === 0) return { version: '1.0', name: sparseName, realSize: size, runs: [] };
  if (modern && !(major === 0 && (minor === 0 || minor === 1))) {
    throw tarError(`sparse format ${major}.${minor} is not known`, offset);
  }
  const runs =
    map === undefined ? [...pairs] : map.split(',').map((part) => decimalText(part, 'GNU.sparse.map', offset));
  if (runs.length % 2 !== 0) throw tarError('a sparse map has an offset and no length', offset);
  if (blocks !== undefined && blocks !== runs.length / 2) {
    throw tarError('a sparse map has another number of runs than declared', offset);
  }
  return { version: '0.x', name: sparseName, realSize: size, runs };
}

const decimal = (value: Uint8Array, key: string, offset: number) => decimalText(latin1(value), key, offset);

function decimalText(text: string, key: string, offset: number): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw tarError(`the PAX record ${key} is not a number from 0 to 2^53`, offset);
  return value;
}

/** `-1.5` is half a second before -1: -2 s and 500,000,000 ns. Digits after the ninth are dropped, towards the past. */
function parseTime(text: string, offset: number): { seconds: number; nanoseconds: number } {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(text);
  if (match === null) throw tarError('the PAX record mtime is not a time', offset);
  const [, sign, whole, fraction = ''] = match;
  const seconds = Number(whole);
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'));
  if (sign === '') return { seconds, nanoseconds };
  const up = /[1-9]/.test(fraction.slice(9)) ? nanoseconds + 1 : nanoseconds;
  if (up === 0) return { seconds: seconds === 0 ? 0 : -seconds, nanoseconds: 0 };
  return { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - up };
}

function latin1(bytes: Uint8Array): ByteString {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}
