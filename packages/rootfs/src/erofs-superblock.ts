import { DecantError } from '@decant/core';

import { crc32c } from './crc32c.ts';
import {
  BLOCK_BYTES,
  COMPAT_CHECKSUM,
  COMPAT_MTIME,
  COMPAT_XATTR_FILTER,
  EROFS_MAGIC,
  INCOMPAT_CHUNKED_FILE,
  INCOMPAT_ZERO_PADDING,
  NID_BYTES,
  SUPERBLOCK_OFFSET,
} from './erofs-format.ts';
import { invalidAt, type MetadataReader } from './metadata-reader.ts';

export interface ErofsSuperblock {
  readonly rootNid: number;
  readonly inodeCount: number;
  readonly blocks: number;
  readonly metadataStart: number;
  readonly sharedXattrStart: number;
  readonly buildSeconds: number;
  readonly buildNanoseconds: number;
  readonly uuid: Uint8Array;
  readonly chunked: boolean;
}

const KNOWN_COMPAT = COMPAT_CHECKSUM | COMPAT_MTIME | COMPAT_XATTR_FILTER;
const KNOWN_INCOMPAT = INCOMPAT_ZERO_PADDING | INCOMPAT_CHUNKED_FILE;

/** Reads and checks block 0; afterwards the reader ends where the filesystem does. */
export async function readSuperblock(reader: MetadataReader, sourceBytes: number): Promise<ErofsSuperblock> {
  const block = Buffer.from(await reader.read(0, BLOCK_BYTES));
  const sb = block.subarray(SUPERBLOCK_OFFSET);
  const invalid = (at: number, what: string) => invalidAt(SUPERBLOCK_OFFSET + at, what);
  if (sb.readUInt32LE(0) !== EROFS_MAGIC) throw invalid(0, 'there is no EROFS superblock');
  if (sb[12] !== Math.log2(BLOCK_BYTES)) throw unsupported('has a block size other than 4,096');
  const compat = sb.readUInt32LE(8);
  const incompat = sb.readUInt32LE(80);
  if ((compat & COMPAT_CHECKSUM) === 0) throw unsupported('has no superblock checksum');
  const stored = sb.readUInt32LE(4);
  sb.writeUInt32LE(0, 4);
  if (crc32c(sb) !== stored) throw invalid(4, 'the superblock checksum is wrong');
  if ((compat & ~KNOWN_COMPAT) !== 0) throw unsupported(`uses unknown features (0x${compat.toString(16)})`);
  if ((incompat & ~KNOWN_INCOMPAT) !== 0) {
    throw unsupported(`uses compression, several devices or other features (0x${incompat.toString(16)})`);
  }
  if (sb[13] !== 0) throw unsupported('has superblock extensions');
  const nothing = [...sb.subarray(84, 104)].every((byte) => byte === 0);
  if (!nothing) throw unsupported('uses compression, several devices, long xattr prefixes or a packed inode');
  const blocks = sb.readUInt32LE(36);
  if (blocks === 0 || blocks * BLOCK_BYTES > sourceBytes) throw invalid(36, 'there are fewer blocks than it declares');
  reader.endBytes = blocks * BLOCK_BYTES;
  const metadataStart = sb.readUInt32LE(40) * BLOCK_BYTES;
  const rootNid = sb.readUInt16LE(14);
  if (metadataStart + rootNid * NID_BYTES >= reader.endBytes) throw invalid(14, 'the root lies beyond the end');
  return {
    rootNid,
    inodeCount: Number(sb.readBigUInt64LE(16)),
    blocks,
    metadataStart,
    sharedXattrStart: sb.readUInt32LE(44) * BLOCK_BYTES,
    buildSeconds: Number(sb.readBigInt64LE(24)),
    buildNanoseconds: sb.readUInt32LE(32),
    uuid: Uint8Array.from(sb.subarray(48, 64)),
    chunked: (incompat & INCOMPAT_CHUNKED_FILE) !== 0,
  };
}

function unsupported(what: string): DecantError {
  return new DecantError('ROOTFS_UNSUPPORTED', `The EROFS image ${what}.`);
}
