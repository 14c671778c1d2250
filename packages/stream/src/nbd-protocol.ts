/*
 * The NBD protocol, fixed newstyle, as in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
 * All integers are big-endian.
 *
 *     greeting   u64 NBDMAGIC, u64 IHAVEOPT, u16 flags             client flags  u32
 *     option     u64 IHAVEOPT, u32 option, u32 length, data
 *     reply      u64 OPTION_REPLY, u32 option, u32 type, u32 length, data
 *     request    u32 REQUEST, u16 flags, u16 type, u64 cookie, u64 offset, u32 length
 *     answer     u32 SIMPLE_REPLY, u32 error, u64 cookie, data
 */
const NBDMAGIC = 0x4e42444d41474943n;
export const IHAVEOPT = 0x49484156454f5054n;
const OPTION_REPLY = 0x0003e889045565a9n;
const REQUEST = 0x25609513;
const SIMPLE_REPLY = 0x67446698;

export const FIXED_NEWSTYLE = 1;
export const NO_ZEROES = 2;

export const OPTION = { exportName: 1, abort: 2, list: 3, info: 6, go: 7 } as const;
export const REPLY = { ack: 1, server: 2, info: 3 } as const;
export const REPLY_ERROR = { unsupported: 0x80000001, invalid: 0x80000003, unknown: 0x80000006 } as const;
export const INFO = { export: 0, name: 1, blockSize: 3 } as const;

/** HAS_FLAGS, READ_ONLY, CAN_MULTI_CONN. */
const TRANSMISSION_FLAGS = 0x0001 | 0x0002 | 0x0100;

export const COMMAND = { read: 0, write: 1, disconnect: 2, trim: 4, writeZeroes: 6 } as const;
export const COMMAND_FLAG_FUA = 1;
export const ERROR = { none: 0, EPERM: 1, EIO: 5, EINVAL: 22 } as const;

/** Smallest, preferred and largest request, in bytes. */
export const BLOCK_SIZES = { smallest: 1, preferred: 4096, largest: 32 * 1024 * 1024 } as const;
/** Longest data of an option that is read; the protocol's longest name is 4,096 bytes. */
export const MOST_OPTION_BYTES = 64 * 1024;
export const MOST_OPTIONS = 64;
export const REQUEST_BYTES = 28;

export interface NbdRequest {
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly length: number;
}

/** Reads the 28 bytes of a request; undefined when they do not begin with the magic number. */
export function decodeRequest(bytes: Buffer): NbdRequest | undefined {
  if (bytes.readUInt32BE(0) !== REQUEST) return undefined;
  return {
    flags: bytes.readUInt16BE(4),
    type: bytes.readUInt16BE(6),
    cookie: bytes.readBigUInt64BE(8),
    offset: bytes.readBigUInt64BE(16),
    length: bytes.readUInt32BE(24),
  };
}

export function encodeAnswer(cookie: bigint, error: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32BE(SIMPLE_REPLY, 0);
  bytes.writeUInt32BE(error, 4);
  bytes.writeBigUInt64BE(cookie, 8);
  return bytes;
}

export function encodeGreeting(): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeBigUInt64BE(NBDMAGIC, 0);
  bytes.writeBigUInt64BE(IHAVEOPT, 8);
  bytes.writeUInt16BE(FIXED_NEWSTYLE | NO_ZEROES, 16);
  return bytes;
}

export function encodeOptionReply(option: number, type: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(OPTION_REPLY, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

/** The answer to NBD_OPT_EXPORT_NAME: u64 size, u16 flags and, for clients that did not decline them, 124 zeros. */
export function encodeExportNameAnswer(sizeBytes: number, zeroes: boolean): Buffer {
  const bytes = Buffer.alloc(zeroes ? 134 : 10);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 0);
  bytes.writeUInt16BE(TRANSMISSION_FLAGS, 8);
  return bytes;
}

export function encodeExportInfo(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt16BE(INFO.export, 0);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 2);
  bytes.writeUInt16BE(TRANSMISSION_FLAGS, 10);
  return bytes;
}

export function encodeBlockSizeInfo(): Buffer {
  const bytes = Buffer.alloc(14);
  bytes.writeUInt16BE(INFO.blockSize, 0);
  bytes.writeUInt32BE(BLOCK_SIZES.smallest, 2);
  bytes.writeUInt32BE(BLOCK_SIZES.preferred, 6);
  bytes.writeUInt32BE(BLOCK_SIZES.largest, 10);
  return bytes;
}

export function encodeNameInfo(name: string): Buffer {
  const kind = Buffer.alloc(2);
  kind.writeUInt16BE(INFO.name, 0);
  return Buffer.concat([kind, Buffer.from(name, 'utf8')]);
}

/** The data of NBD_REP_SERVER: u32 length, name. */
export function encodeServer(name: string): Buffer {
  const text = Buffer.from(name, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length, 0);
  return Buffer.concat([length, text]);
}

/** Reads the data of NBD_OPT_INFO and NBD_OPT_GO: u32 length, name, u16 count, u16 each; undefined when malformed. */
export function decodeInfoRequest(data: Buffer): { name: string; infos: number[] } | undefined {
  if (data.length < 6) return undefined;
  const nameBytes = data.readUInt32BE(0);
  if (nameBytes > data.length - 6) return undefined;
  const count = data.readUInt16BE(4 + nameBytes);
  if (data.length !== 6 + nameBytes + 2 * count) return undefined;
  const infos: number[] = [];
  for (let i = 0; i < count; i++) infos.push(data.readUInt16BE(6 + nameBytes + 2 * i));
  return { name: data.toString('utf8', 4, 4 + nameBytes), infos };
}
