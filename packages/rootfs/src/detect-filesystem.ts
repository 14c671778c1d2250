import type { RandomAccess } from '@decant/cas';

import { EROFS_MAGIC, SUPERBLOCK_OFFSET } from './erofs-format.ts';

export type Filesystem = 'erofs' | 'ext4' | 'raw';

/** ext2, ext3 and ext4: u16 at 56 bytes into the superblock, which is also at 1,024. */
const EXT_MAGIC = 0xef53;
const EXT_MAGIC_OFFSET = 56;
/** Bits 0x40 (extents) of the u32 of incompatible features at 96: what tells ext4 from its elders. */
const EXT_INCOMPAT_OFFSET = 96;
const EXT_EXTENTS = 0x40;

/** Tells a filesystem by its magic numbers alone; `raw` is everything else, ext2 and ext3 included. */
export async function detectFilesystem(
  source: RandomAccess,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<Filesystem> {
  if (source.sizeBytes < SUPERBLOCK_OFFSET + 128) return 'raw';
  const superblock = Buffer.from(await source.read(SUPERBLOCK_OFFSET, 128, options));
  if (superblock.readUInt32LE(0) === EROFS_MAGIC) return 'erofs';
  const extents = (superblock.readUInt32LE(EXT_INCOMPAT_OFFSET) & EXT_EXTENTS) !== 0;
  return superblock.readUInt16LE(EXT_MAGIC_OFFSET) === EXT_MAGIC && extents ? 'ext4' : 'raw';
}
