import { isDecantError } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { mutate, numbers, sealSuperblock, smallImage } from './broken.fixture.ts';
import { decodeDirectoryBlock } from './directory-blocks.ts';
import { readErofs, type ErofsLimits } from './erofs-read.ts';
import { describeImage, memoryAccess } from './trees.fixture.ts';

const image = await smallImage();
const SB = 1024;

const read = (bytes: Buffer, limits: ErofsLimits = {}) => readErofs(memoryAccess(bytes), { limits });

/** The byte offset of an inode's record, by path. */
function offsetOf(...path: string[]): number {
  let at = image.bytes.readUInt16LE(SB + 14) * 32;
  for (const name of path) {
    const size = Number(image.bytes.readBigUInt64LE(at + 8));
    const units = image.bytes.readUInt16LE(at + 2);
    const inline = image.bytes.readUInt16LE(at) >>> 1 === 2;
    const behind = at + 64 + (units === 0 ? 0 : 12 + (units - 1) * 4);
    const start = inline && size < 4096 ? behind : image.bytes.readUInt32LE(at + 16) * 4096;
    const entries = decodeDirectoryBlock(image.bytes.subarray(start, start + Math.min(4096, size)));
    if (typeof entries === 'string') throw new Error(entries);
    at = entries.find((entry) => entry.name === name)!.nid * 32;
  }
  return at;
}

function changed(change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(image.bytes);
  change(bytes);
  return sealSuperblock(bytes);
}

describe('readErofs refuses', () => {
  const root = offsetOf();
  const shared = offsetOf('shared');
  const sparse = offsetOf('sparse');
  const deep = offsetOf('sub', 'deep');
  const sub = offsetOf('sub');
  const cases: [string, (bytes: Buffer) => void][] = [
    ['another magic', (b) => b.writeUInt32LE(1, SB)],
    ['more blocks than there are', (b) => b.writeUInt32LE(b.readUInt32LE(SB + 36) + 1, SB + 36)],
    ['fewer blocks than are used', (b) => b.writeUInt32LE(b.readUInt32LE(SB + 36) - 1, SB + 36)],
    ['another number of inodes', (b) => b.writeUInt32LE(3, SB + 16)],
    ['a root beyond the end', (b) => b.writeUInt16LE(65_535, SB + 14)],
    ['a root that is a file', (b) => b.writeUInt16LE(shared / 32, SB + 14)],
    ['a compressed inode', (b) => b.writeUInt16LE(1 | (3 << 1), shared)],
    ['an unknown type', (b) => b.writeUInt16LE(0o170000, shared + 4)],
    ['a type that its entry does not have', (b) => b.writeUInt16LE(0o010644, offsetOf('device') + 4)],
    ['a wrong link count', (b) => b.writeUInt32LE(2, shared + 44)],
    ['a wrong link count of a directory', (b) => b.writeUInt32LE(9, root + 44)],
    ['a set reserved byte', (b) => b.writeUInt8(1, shared + 50)],
    ['a billion nanoseconds', (b) => b.writeUInt32LE(1_000_000_000, shared + 40)],
    ['data beyond the end', (b) => b.writeUInt32LE(0xffff_0000, shared + 16)],
    ['data over metadata', (b) => b.writeUInt32LE(0, shared + 16)],
    ['an impossible size', (b) => b.writeBigUInt64LE(2n ** 63n, shared + 8)],
    ['a huge chunk map', (b) => b.writeBigUInt64LE(2n ** 52n, sparse + 8)],
    ['an unknown chunk format', (b) => b.writeUInt16LE(0x40, sparse + 16)],
    ['chunks that are not declared', (b) => b.writeUInt32LE(0, SB + 80)],
    ['an xattr over its area', (b) => b.writeUInt8(255, shared + 64 + 12)],
    ['an unknown xattr prefix', (b) => b.writeUInt8(9, shared + 64 + 13)],
    ['an endless link target', (b) => b.writeBigUInt64LE(4096n, offsetOf('link') + 8)],
    // Behind the directory's inode: three entries of 12 bytes; the last, after . and .., is its only child.
    ['a directory in itself', (b) => b.writeUInt32LE(sub / 32, deep + 64 + 24)],
    ['a .. that points elsewhere', (b) => b.writeUInt32LE(root / 32, deep + 64 + 12)],
    ['a name with a slash', (b) => b.write('fi/e', deep + 64 + 39)],
    ['names out of order', (b) => b.write('!', deep + 64 + 39)],
    ['an entry for no inode', (b) => b.writeUInt32LE(1, deep + 64 + 24)],
    ['an entry beyond the end', (b) => b.writeUInt32LE(0xffff_ffff, deep + 64 + 28)],
  ];

  it('nothing of the image as it is', async () => {
    expect((await read(image.bytes)).inodeCount).toBe(9);
    expect((await read(changed(() => undefined))).inodeCount).toBe(9);
  });

  it.each(cases)('%s', async (_, change) => {
    const error: unknown = await read(changed(change)).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'ROOTFS_INVALID' });
    expect(isDecantError(error) && typeof error.details['offset']).toBe('number');
  });

  it('a wrong checksum', async () => {
    const bytes = Buffer.from(image.bytes);
    bytes.writeUInt8(1, SB + 130);
    await expect(read(bytes)).rejects.toMatchObject({ code: 'ROOTFS_INVALID', details: { offset: SB + 4 } });
  });

  it('compression and other features', async () => {
    const bytes = changed((b) => b.writeUInt32LE(0x2, SB + 80));
    await expect(read(bytes)).rejects.toMatchObject({ code: 'ROOTFS_UNSUPPORTED' });
  });

  it('what is cut short', async () => {
    for (const length of [0, 100, 1024, 4095, 4096, image.bytes.length - 4096]) {
      await expect(read(image.bytes.subarray(0, length))).rejects.toMatchObject({ code: 'ROOTFS_INVALID' });
    }
  });

  it('more than the limits allow', async () => {
    const limits: ErofsLimits[] = [
      { maxInodes: 8 },
      { maxNames: 200 },
      { maxRanges: 0 },
      { maxXattrBytes: 10 },
      { maxMetadataBytes: 4096 },
    ];
    for (const limit of limits)
      await expect(read(image.bytes, limit)).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
  });

  it('or reads any mutation, without another kind of error', async () => {
    const random = numbers(20_261_122);
    let accepted = 0;
    for (let i = 0; i < 1500; i++) {
      const bytes = mutate(image.bytes, image.metadataBytes, random);
      try {
        await describeImage(await read(bytes, { maxRanges: 10_000 }));
        accepted++;
      } catch (error) {
        if (!isDecantError(error)) throw error;
        expect(['ROOTFS_INVALID', 'ROOTFS_UNSUPPORTED', 'LIMIT_EXCEEDED']).toContain(error.code);
      }
    }
    expect(accepted).toBeLessThan(1500);
  });
});
