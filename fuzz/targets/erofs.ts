import { crc32c } from '../../packages/rootfs/src/crc32c.ts';
import { diffTrees, planErofs, readErofs, type DirectoryNode, type TreeNode } from '../../packages/rootfs/src/index.ts';
import { createMemoryRandomAccess, loadHashProvider } from '../../packages/cas/src/index.ts';
import { Random } from '../random.ts';
import { Finding, type FuzzTarget } from '../target.ts';

const SUPERBLOCK = 1024;
const BLOCK = 4096;
const POOL = 32;
const hash = await loadHashProvider();

function metaOf(random: Random): TreeNode['meta'] {
  const names = ['security.capability', 'system.posix_acl_access', 'user.a', 'user.b'].filter(() => random.chance(0.1));
  return {
    mode: random.below(0o10000),
    uid: random.pick([0, 1000, 4_000_000_000]),
    gid: random.below(5),
    mtimeSeconds: random.pick([0, -5, 1_700_000_000, 7_258_118_400]),
    mtimeNanoseconds: random.below(1_000_000_000),
    // Few values, so that inodes share some.
    xattrs: names.map((name) => ({ name, value: new Uint8Array(random.pick([0, 20, 44])).fill(random.below(3)) })),
  };
}

function nodeOf(random: Random, depth: number): TreeNode {
  const meta = metaOf(random);
  if (depth > 0 && random.chance(0.3)) return directoryOf(random, depth - 1);
  switch (random.below(6)) {
    case 0:
      return { kind: 'symlink', meta, target: 't'.repeat(random.pick([1, 30, 3000])) };
    case 1:
      return { kind: 'character-device', meta, major: random.below(4096), minor: random.below(2 ** 20) };
    case 2:
      return { kind: 'fifo', meta };
    default: {
      const data = random.bytes(random.pick([0, 1, 100, 4096, 5000]));
      const blob = {
        readSync: (target: Uint8Array, at: number) => copy(data.subarray(at, at + target.length), target),
      };
      const hole = random.chance(0.2) ? random.pick([4096, 8192, 500_000]) : 0;
      const extents = data.length === 0 ? [] : [{ fileOffset: hole, lengthBytes: data.length, blob, blobOffset: 0 }];
      return { kind: 'file', meta, sizeBytes: hole + data.length, extents };
    }
  }
}

function copy(from: Uint8Array, target: Uint8Array): number {
  target.set(from);
  return from.length;
}

function directoryOf(random: Random, depth: number): DirectoryNode {
  const entries = new Map<string, TreeNode>();
  const count = random.pick([0, 1, 2, 3, 5]);
  let last: TreeNode | undefined;
  for (let i = 0; i < count; i++) {
    const linked = last !== undefined && last.kind !== 'directory' && random.chance(0.1) ? last : undefined;
    last = linked ?? nodeOf(random, depth);
    entries.set(`${random.pick(['a', 'file-', '\xff', 'long'.repeat(20)])}${i}`, last);
  }
  // Sometimes more names than one block has room for.
  if (last !== undefined && last.kind !== 'directory' && random.chance(0.1)) {
    for (let i = 0; i < 300; i++) entries.set(`another-name-${i}`, last);
  }
  return { kind: 'directory', meta: metaOf(random), entries };
}

async function imageOf(seed: number): Promise<Uint8Array> {
  const plan = await planErofs(directoryOf(new Random(seed), 3), { hash });
  const bytes = new Uint8Array(plan.sizeBytes);
  let at = 0;
  for await (const piece of plan.pieces()) {
    if (piece.type === 'zeros') at += piece.lengthBytes;
    if (piece.type !== 'data') continue;
    bytes.set(piece.bytes, at);
    at += piece.bytes.length;
  }
  return bytes;
}

// Images cannot be written while one waits, so there are some to choose from.
const images = await Promise.all(Array.from({ length: POOL }, (_, i) => imageOf(i + 1)));

function generate(random: Random): Uint8Array {
  return random.pick(images);
}

/** Makes the checksum of the superblock fit, and mostly the number of blocks. */
function repair(bytes: Uint8Array<ArrayBuffer>, random: Random): void {
  if (bytes.length < BLOCK) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (random.chance(0.7)) view.setUint32(SUPERBLOCK + 36, Math.floor(bytes.length / BLOCK), true);
  if (random.chance(0.1)) return;
  view.setUint32(SUPERBLOCK + 4, 0, true);
  view.setUint32(SUPERBLOCK + 4, crc32c(bytes.subarray(SUPERBLOCK, BLOCK)), true);
}

/** What is accepted can be read in full, and is no different from itself. */
async function check(bytes: Uint8Array): Promise<void> {
  const source = createMemoryRandomAccess(bytes);
  const image = await readErofs(source);
  let compared = 0;
  const changes = diffTrees(image.root, image.root, {
    sameContent: async (one) => {
      compared++;
      for (const { fileOffset, lengthBytes, imageOffset } of one.ranges) {
        if (fileOffset + lengthBytes > one.sizeBytes) throw new Finding('data beyond the size of a file');
        if (imageOffset + lengthBytes > image.sizeBytes) throw new Finding('data beyond the end of the image');
      }
      const lengthBytes = Math.min(one.sizeBytes, 65_536);
      return (await image.readFile(one, one.sizeBytes - lengthBytes, lengthBytes)).length === lengthBytes;
    },
  });
  for await (const { path } of changes) throw new Finding(`${JSON.stringify(path)} differs from itself`);
  if (compared > image.inodeCount) throw new Finding('more files were compared than there are inodes');
}

export const erofsTarget: FuzzTarget = {
  name: 'erofs',
  refusals: ['ROOTFS_INVALID', 'ROOTFS_UNSUPPORTED', 'LIMIT_EXCEEDED'],
  maxMs: 5000,
  maxMemoryBytes: 64 * 2 ** 20,
  generate,
  repair,
  check,
};
