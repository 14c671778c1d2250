/**
 * The EROFS on-disk format, as far as decant writes and reads it: Linux `fs/erofs/erofs_fs.h` and
 * `Documentation/filesystems/erofs.rst`. All integers little-endian; blocks of 4,096 bytes.
 *
 *     superblock, 128 bytes at 1,024
 *        0  u32 magic                  4  u32 crc32c of the bytes from here to the end of block 0, this field as 0
 *        8  u32 compatible features   12  u8 log2 of the block size    13  u8 extension slots of 16 bytes
 *       14  u16 root nid              16  u64 inodes                   24  u64 build time, 32 u32 nanoseconds
 *       36  u32 blocks                40  u32 first metadata block     44  u32 first block of shared xattrs
 *       48  16 bytes UUID             64  16 bytes volume name         80  u32 incompatible features
 *       84  u16 compression           86  u16 further devices          88  u16 device slot offset
 *       90  u8 log2 of blocks per directory block                      91  u8 long xattr prefixes
 *       92  u32 their start           96  u64 packed nid              104  reserved
 *
 *     inode, at (first metadata block × 4096 + nid × 32); extended form of 64 bytes
 *        0  u16 format: bit 0 extended, bits 1–3 layout               2  u16 xattr units (see below)
 *        4  u16 mode                   6  u16 reserved                 8  u64 size
 *       16  u32 first block | device number | chunk format            20  u32 inode number for 32-bit callers
 *       24  u32 uid                   28  u32 gid                     32  s64 mtime seconds
 *       40  u32 mtime nanoseconds     44  u32 links                   48  reserved
 *     compact form of 32 bytes: 6 u16 links, 8 u32 size, 12 reserved, 16 and 20 as above, 24 u16 uid, 26 u16 gid;
 *     its mtime is the build time.
 *
 *     after the inode: xattrs; then, by layout, the tail of the data (inline) or the chunk map
 *     xattrs, 12 + 4 × (units - 1) bytes: u32 name filter, u8 shared count, 7 reserved, u32 per shared xattr
 *     (its offset / 4 from the first shared block), then entries, each padded to 4 bytes:
 *        0  u8 name length   1  u8 prefix index   2  u16 value length   4  name without its prefix, value
 *     chunk map: u32 first block per chunk, or 8 bytes {u16 0, u16 device, u32 first block}; 0xffffffff is a hole
 *
 *     directory block: an array of 12-byte entries, then the names without separators, NUL-filled to the block's end
 *        0  u64 nid   8  u16 offset of the name in the block   10  u8 file type   11  u8 reserved
 *     Names ascend bytewise over the whole directory, `.` and `..` among them.
 */
export const BLOCK_BYTES = 4096;
export const SUPERBLOCK_OFFSET = 1024;
export const SUPERBLOCK_BYTES = 128;
export const EROFS_MAGIC = 0xe0f5e1e2;
export const INODE_BYTES = 64;
export const COMPACT_INODE_BYTES = 32;
export const NID_BYTES = 32;
export const NULL_BLOCK = 0xffffffff;
export const DIRENT_BYTES = 12;
export const XATTR_HEADER_BYTES = 12;
export const XATTR_ENTRY_BYTES = 4;
export const NAME_MAX = 255;
export const SYMLINK_MAX = 4095;

export const COMPAT_CHECKSUM = 0x1;
export const COMPAT_MTIME = 0x2;
export const COMPAT_XATTR_FILTER = 0x4;
/** Set by every mkfs.erofs; says nothing about images without compressed files. */
export const INCOMPAT_ZERO_PADDING = 0x1;
export const INCOMPAT_CHUNKED_FILE = 0x4;

export const LAYOUT_PLAIN = 0;
export const LAYOUT_INLINE = 2;
export const LAYOUT_CHUNKS = 4;
/** Bits 0–4 of a chunk format: log2 of blocks per chunk; bit 5: 8-byte map entries. */
export const CHUNK_BITS_MASK = 0x1f;
export const CHUNK_INDEXES = 0x20;

export const MODE_TYPES = {
  fifo: 0o010000,
  'character-device': 0o020000,
  directory: 0o040000,
  'block-device': 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
} as const;

export type NodeKind = keyof typeof MODE_TYPES;

/** File types of directory entries, the same numbers as in ext4. */
export const ENTRY_TYPES: Readonly<Record<NodeKind, number>> = {
  file: 1,
  directory: 2,
  'character-device': 3,
  'block-device': 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
};

/** Prefix of an xattr name by its index. The two ACL names are complete: nothing follows them. */
export const XATTR_PREFIXES: ReadonlyMap<number, string> = new Map([
  [1, 'user.'],
  [2, 'system.posix_acl_access'],
  [3, 'system.posix_acl_default'],
  [4, 'trusted.'],
  [6, 'security.'],
]);

export const XATTR_WHOLE_NAMES: ReadonlySet<number> = new Set([2, 3]);

/** Linux's 32-bit device number: minor bits 0–7, major bits 8–19, minor bits 20–31. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

export function decodeDevice(device: number): { major: number; minor: number } {
  return { major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00) };
}

export function kindOfMode(mode: number): NodeKind | undefined {
  const type = mode & 0o170000;
  return (Object.keys(MODE_TYPES) as NodeKind[]).find((kind) => MODE_TYPES[kind] === type);
}
