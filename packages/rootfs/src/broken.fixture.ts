import { crc32c } from './crc32c.ts';
import { BLOCK_BYTES, SUPERBLOCK_OFFSET } from './erofs-format.ts';
import { planErofs } from './erofs-plan.ts';
import { collect, directory, file, memoryBlob, meta, noise, testHash } from './trees.fixture.ts';
import type { TreeNode } from './tree.ts';

/** An image with a bit of everything in its metadata zone. */
export async function smallImage(): Promise<{ bytes: Buffer; metadataBytes: number }> {
  const shared = file('shared', { xattrs: [{ name: 'user.x', value: noise(1, 20) }] });
  const root = directory({
    shared,
    'again-shared': shared,
    link: { kind: 'symlink', meta: meta(), target: 'shared' },
    device: { kind: 'block-device', meta: meta(), major: 8, minor: 300 },
    sparse: {
      kind: 'file',
      meta: meta(),
      sizeBytes: 40_000,
      extents: [{ fileOffset: 20_000, lengthBytes: 100, blob: memoryBlob(noise(3, 100)), blobOffset: 0 }],
    },
    sub: directory({ deep: directory({ file: file(noise(2, 9000)) }) }),
    many: directory(Array.from({ length: 200 }, (_, i): [string, TreeNode] => [`a-longer-name-${i}`, shared])),
  });
  const plan = await planErofs(root, { hash: testHash });
  return { bytes: (await collect(plan.pieces())).bytes, metadataBytes: plan.metadataBytes };
}

/** Makes the superblock checksum right again, so that a change elsewhere is what a reader sees. */
export function sealSuperblock(image: Buffer): Buffer {
  image.writeUInt32LE(0, SUPERBLOCK_OFFSET + 4);
  image.writeUInt32LE(crc32c(image.subarray(SUPERBLOCK_OFFSET, BLOCK_BYTES)), SUPERBLOCK_OFFSET + 4);
  return image;
}

/** A reproducible sequence of numbers under 2^32. */
export function* numbers(seed: number): Generator<number, never, undefined> {
  let state = seed >>> 0 || 1;
  for (;;) {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    yield state;
  }
}

const VALUES = [0, 1, 0x7f, 0x80, 0xff];

/** Changes one to four bytes of the metadata. */
export function mutate(image: Buffer, metadataBytes: number, random: Generator<number, never, undefined>): Buffer {
  const changed = Buffer.from(image);
  const count = 1 + (random.next().value % 4);
  for (let i = 0; i < count; i++) {
    const at = SUPERBLOCK_OFFSET + (random.next().value % (metadataBytes - SUPERBLOCK_OFFSET));
    const choice = random.next().value;
    changed[at] = choice % 2 === 0 ? VALUES[choice % VALUES.length]! : choice >>> 8;
  }
  return sealSuperblock(changed);
}
