import { DecantError, quote } from '@decant/core';

import { bytesOf, toByteString, type ByteString } from '../byte-string.ts';
import type { ContextEntry } from '../entry.ts';

/*
 * One entry of an archive (POSIX.1-2017, pax, "ustar Interchange Format"):
 *
 *   [extended header, only when needed: 512-byte header of type x, records padded to 512]
 *   [512-byte header] [content padded to 512]
 *
 * Header:  name 0+100 | mode 100+8 | uid 108+8 | gid 116+8 | size 124+12 | mtime 136+12 | checksum 148+8 |
 *          type 156+1 | link name 157+100 | "ustar\0" 257+6 | "00" 263+2 | user name 265+32 | group name 297+32 |
 *          device major 329+8 | device minor 337+8 | name prefix 345+155
 * Record:  "LENGTH KEY=VALUE\n", LENGTH in decimal digits counting the whole record, itself included.
 *
 * Owner 0:0 without names and time 0: equal trees give equal bytes. Names are written as the bytes they are.
 */
export const BLOCK_BYTES = 512;
const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
/** Eleven octal digits. */
const LARGEST_SIZE = 8 ** 11 - 1;
/** Longest path and link target: PATH_MAX of Linux. */
const LONGEST_PATH = 4096;

const TYPE = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const;

/** The header block of an entry, with an extended header before it when the plain one cannot hold the entry. */
export function tarHeader(entry: ContextEntry): Uint8Array<ArrayBuffer> {
  const path = pathBytesOf(entry);
  const link = linkBytesOf(entry);
  if (path.length > LONGEST_PATH || link.length > LONGEST_PATH) {
    throw new DecantError(
      'CONTEXT_ENTRY_UNSUPPORTED',
      `The path or link target of ${quote(entry.path)} is over ${LONGEST_PATH} bytes long.`,
      {
        details: { path: entry.path },
      },
    );
  }
  const name = (entry.type === 'directory' ? `${path}/` : path) as ByteString;
  const split = splitName(name);
  const records = [
    split === undefined ? record('path', name) : '',
    link.length > NAME_BYTES ? record('linkpath', link) : '',
    entry.sizeBytes > LARGEST_SIZE ? record('size', String(entry.sizeBytes) as ByteString) : '',
  ].join('') as ByteString;
  const { prefix, rest } = split ?? { prefix: '' as ByteString, rest: name.slice(0, NAME_BYTES) as ByteString };
  const block = headerBlock({
    name: rest,
    prefix,
    mode: entry.mode,
    sizeBytes: entry.sizeBytes > LARGEST_SIZE ? 0 : entry.sizeBytes,
    type: TYPE[entry.type],
    link: link.slice(0, NAME_BYTES) as ByteString,
  });
  if (records === '') return block;
  const extended = new Uint8Array(BLOCK_BYTES + padded(records.length) + BLOCK_BYTES);
  const extendedName = 'PaxHeader' as ByteString;
  extended.set(
    headerBlock({
      name: extendedName,
      prefix: '' as ByteString,
      mode: 0o644,
      sizeBytes: records.length,
      type: 'x',
      link: '' as ByteString,
    }),
  );
  extended.set(bytesOf(records), BLOCK_BYTES);
  extended.set(block, extended.length - BLOCK_BYTES);
  return extended;
}

/** Bytes of content with the zeros up to the next block. */
export function padded(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
}

/** The exact path of an entry. */
export function pathBytesOf(entry: ContextEntry): ByteString {
  return toByteString(entry.pathBytes ?? entry.path);
}

/** The exact link target of an entry, '' when it has none. */
export function linkBytesOf(entry: ContextEntry): ByteString {
  return toByteString(entry.linkTargetBytes ?? entry.linkTarget ?? '');
}

/** The two fields of a name, cut at a `/` that belongs to neither; undefined when it does not fit. */
function splitName(name: ByteString): { prefix: ByteString; rest: ByteString } | undefined {
  if (name.length <= NAME_BYTES) return { prefix: '' as ByteString, rest: name };
  // The cut as far to the front as the rest allows; the slash at the end of a directory is no place to cut.
  const cut = name.indexOf('/', name.length - NAME_BYTES - 1);
  if (cut <= 0 || cut > PREFIX_BYTES || cut >= name.length - 1) return undefined;
  return { prefix: name.slice(0, cut) as ByteString, rest: name.slice(cut + 1) as ByteString };
}

function record(key: string, value: ByteString): string {
  const base = key.length + value.length + 3;
  let length = base + String(base).length;
  if (base + String(length).length !== length) length = base + String(length).length;
  return `${length} ${key}=${value}\n`;
}

interface HeaderFields {
  readonly name: ByteString;
  readonly prefix: ByteString;
  readonly mode: number;
  readonly sizeBytes: number;
  readonly type: string;
  readonly link: ByteString;
}

function headerBlock(fields: HeaderFields): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(BLOCK_BYTES);
  const put = (at: number, text: string) => {
    for (let i = 0; i < text.length; i++) block[at + i] = text.charCodeAt(i);
  };
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0');
  put(0, fields.name);
  put(100, octal(fields.mode & 0o7777, 7));
  put(108, octal(0, 7));
  put(116, octal(0, 7));
  put(124, octal(fields.sizeBytes, 11));
  put(136, octal(0, 11));
  put(148, ' '.repeat(8));
  put(156, fields.type);
  put(157, fields.link);
  put(257, 'ustar\x0000');
  put(329, octal(0, 7));
  put(337, octal(0, 7));
  put(345, fields.prefix);
  let sum = 0;
  for (const byte of block) sum += byte;
  put(148, `${octal(sum, 6)}\0 `);
  return block;
}
