import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { planErofs } from './erofs-plan.ts';
import { readErofs } from './erofs-read.ts';
import {
  anyTree,
  collect,
  describeImage,
  describeSource,
  directory,
  file,
  memoryAccess,
  memoryBlob,
  meta,
  noise,
  testHash,
} from './trees.fixture.ts';
import type { DirectoryNode, FileNode, TreeNode } from './tree.ts';

async function write(root: DirectoryNode) {
  const plan = await planErofs(root, { hash: testHash });
  const { bytes, cuts } = await collect(plan.pieces());
  expect(bytes.length).toBe(plan.sizeBytes);
  return { plan, bytes, cuts };
}

async function roundTrip(root: DirectoryNode) {
  const written = await write(root);
  const image = await readErofs(memoryAccess(written.bytes));
  expect(await describeImage(image)).toEqual(await describeSource(root));
  return { ...written, image };
}

describe('planErofs and readErofs', () => {
  it('give back any tree', async () => {
    await fc.assert(
      fc.asyncProperty(anyTree, async (root) => {
        await roundTrip(root);
      }),
      { numRuns: 120 },
    );
  });

  it('keep an empty root in one block', async () => {
    const { bytes, image } = await roundTrip(directory());
    expect(bytes.length).toBe(4096);
    expect(image.inodeCount).toBe(1);
  });

  it('keep directories of many thousands of names', async () => {
    const names = Array.from({ length: 12_000 }, (_, i): [string, TreeNode] => [`name-${i * 7919}`, file('x')]);
    const { image } = await roundTrip(directory(names));
    expect(image.root.entries.size).toBe(12_000);
  }, 60_000);

  it('keep directories nested 3,000 deep', async () => {
    let root = directory({ bottom: file('here') });
    for (let i = 0; i < 3000; i++) root = directory({ d: root });
    const { bytes } = await write(root);
    expect((await readErofs(memoryAccess(bytes))).inodeCount).toBe(3002);
  }, 60_000);

  it('keep large extended attributes, which cross blocks', async () => {
    const xattrs = [
      { name: 'system.posix_acl_access', value: noise(1, 44) },
      { name: 'user.large', value: noise(2, 65_535) },
      { name: 'user.larger', value: noise(3, 60_000) },
    ];
    await roundTrip(directory({ a: file('a', { xattrs }), b: file('b') }, { xattrs }));
  });

  it('store extended attributes once that many inodes have', async () => {
    const value = noise(1, 5000);
    const acl = { name: 'system.posix_acl_access', value: noise(2, 44) };
    const large = { name: 'user.large', value };
    const names = Array.from({ length: 400 }, (_, i): [string, TreeNode] => [
      `f${i}`,
      file('x', { xattrs: [acl, large, { name: 'user.own', value: Buffer.from(`${i}`) }] }),
    ]);
    const { plan, image } = await roundTrip(directory(names, { xattrs: [acl] }));
    expect(plan.metadataBytes).toBeLessThan(400 * 150);
    // The shared ones are metadata like the rest: a checker has to see them.
    expect(image.metadataBlocks).toContain(plan.metadataBytes / 4096 - 1);
  });

  it('share no more attributes of one inode than its count can say', async () => {
    const xattrs = Array.from({ length: 400 }, (_, i) => ({ name: `user.${i}`, value: noise(i + 1, 40) }));
    xattrs.sort((a, b) => (a.name < b.name ? -1 : 1));
    await roundTrip(directory({ a: file('a', { xattrs }), b: file('b', { xattrs }) }));
  });

  it('leave attributes with their inode that take less room there', async () => {
    const one = await write(directory({ a: file('', { xattrs: [{ name: 'user.a', value: noise(1, 3000) }] }) }));
    expect(one.plan.metadataBytes).toBe(2 * 4096);
    const tiny = { xattrs: [{ name: 'user.a', value: Buffer.from('') }] };
    const two = await write(directory({ a: file('', tiny), b: file('', tiny) }));
    expect(two.plan.metadataBytes).toBe(4096);
  });

  it('give equal bytes for equal trees, whatever order the entries were added in', async () => {
    const one = directory({ a: file('1'), b: file('2'), c: directory({ d: file('3') }) });
    const other = directory({ c: directory({ d: file('3') }), b: file('2'), a: file('1') });
    expect((await write(one)).bytes.equals((await write(other)).bytes)).toBe(true);
  });

  it('give another UUID for another tree', async () => {
    const one = await roundTrip(directory({ a: file('1') }));
    const other = await roundTrip(directory({ a: file('1', { mode: 0o600 }) }));
    expect(one.image.uuid).not.toEqual(other.image.uuid);
  });

  it('store nothing for holes, and describe huge sparse files', async () => {
    const sparse: FileNode = {
      kind: 'file',
      meta: meta(),
      sizeBytes: 2 ** 40 + 5,
      extents: [{ fileOffset: 2 ** 39, lengthBytes: 10, blob: memoryBlob(Buffer.from('0123456789')), blobOffset: 0 }],
    };
    const plan = await planErofs(directory({ sparse }), { hash: testHash });
    let stored = 0;
    let position = 0;
    const head: Buffer[] = [];
    for await (const piece of plan.pieces()) {
      if (piece.type === 'zeros') position += piece.lengthBytes;
      if (piece.type !== 'data') continue;
      stored += piece.bytes.length;
      if (position < plan.metadataBytes) head.push(Buffer.from(piece.bytes));
      position += piece.bytes.length;
    }
    expect(position).toBe(plan.sizeBytes);
    expect(stored).toBeLessThan(200_000);
    const zone = Buffer.concat(head);
    const image = await readErofs({
      sizeBytes: plan.sizeBytes,
      read: (offset, length) => {
        const bytes = Buffer.alloc(length);
        zone.copy(bytes, 0, offset);
        return Promise.resolve(bytes);
      },
    });
    const node = image.root.entries.get('sparse');
    expect(node).toMatchObject({ sizeBytes: 2 ** 40 + 5 });
    expect(node?.kind === 'file' && node.ranges.map(({ fileOffset }) => fileOffset)).toEqual([2 ** 39]);
  });

  it('clamp times to sourceDateEpoch', async () => {
    const root = directory({
      old: file('', { mtimeSeconds: -5 }),
      late: file('', { mtimeSeconds: 99, mtimeNanoseconds: 7 }),
    });
    const plan = await planErofs(root, { hash: testHash, sourceDateEpoch: 50 });
    const image = await readErofs(memoryAccess((await collect(plan.pieces())).bytes));
    expect(image.root.entries.get('old')?.meta.mtimeSeconds).toBe(-5);
    expect(image.root.entries.get('late')?.meta).toMatchObject({ mtimeSeconds: 50, mtimeNanoseconds: 0 });
  });
});

/** Bytes that say whose they are, made faster than noise. */
function text(seed: number, lengthBytes: number): Buffer {
  return Buffer.alloc(lengthBytes, `${seed} `);
}

describe('the layout', () => {
  const many = (change?: number) => {
    const names: [string, TreeNode][] = [];
    for (let i = 0; i < 400; i++)
      names.push([`f${String(i).padStart(4, '0')}`, file(text(i + 1, 1000 + ((i * 977) % 30_000)))]);
    for (let i = 0; i < 4; i++) names.push([`g${i}`, file(text(5000 + i, 400_000))]);
    if (change !== undefined)
      names.splice(change, 0, [`f${String(change - 1).padStart(4, '0')}-new`, file(text(9999, 9000))]);
    return directory(names);
  };

  it('begins every large file and every group with a cut', async () => {
    const { plan, cuts } = await write(many());
    expect(cuts[0]).toBe(4096);
    const data = cuts.filter((cut) => cut >= plan.metadataBytes);
    expect(data[0]).toBe(plan.metadataBytes);
    // Large files come after the small ones here, by their names, and two sections at most lie in 8 MiB.
    const large = data.slice(-4);
    for (let i = 1; i < 4; i++) expect(large[i]! - large[i - 1]!).toBeGreaterThanOrEqual(401_408);
    const groups = data.slice(0, -4).map((cut, i) => data[i + 1]! - cut);
    expect(groups.length).toBeGreaterThan(10);
    expect(Math.min(...groups)).toBeGreaterThanOrEqual(64 * 1024);
  });

  const segments = async (root: DirectoryNode) => {
    const { plan, bytes, cuts } = await write(root);
    const data = cuts.filter((cut) => cut >= plan.metadataBytes);
    return data.map((cut, i) => {
      // What lies between two sections belongs to neither.
      let end = data[i + 1] ?? plan.sizeBytes;
      while (bytes[end - 1] === 0) end--;
      return bytes.subarray(cut, end).toString('latin1');
    });
  };

  it('moves few groups when a file is inserted', async () => {
    const before = new Set(await segments(many()));
    for (const change of [1, 150, 300]) {
      const fresh = (await segments(many(change))).filter((segment) => !before.has(segment));
      expect(fresh.length).toBeLessThanOrEqual(3);
    }
  });

  it('keeps the metadata of all other sections when a file grows by a page', async () => {
    const grown = (extra: number) =>
      directory(
        Array.from({ length: 600 }, (_, i): [string, TreeNode] => [
          `f${String(i).padStart(4, '0')}`,
          file(text(i + 1, 60_000 + (i === 0 ? extra : 0))),
        ]),
      );
    const [before, after] = [await write(grown(0)), await write(grown(4096))];
    const blocks = (image: Buffer, end: number) =>
      Array.from({ length: end / 4096 }, (_, i) => image.subarray(i * 4096, (i + 1) * 4096));
    const old = blocks(before.bytes, before.plan.metadataBytes);
    const fresh = blocks(after.bytes, after.plan.metadataBytes).filter((block, i) => !block.equals(old[i]!));
    // 600 inodes are 10 blocks and more; a section of 8 MiB has about 140 of them.
    expect(old.length).toBeGreaterThan(10);
    expect(fresh.length).toBeLessThanOrEqual(6);
  });

  it('keeps the inodes of all packages before one that gets a file more', async () => {
    const modules = (more: boolean) => {
      const files = (count: number) =>
        Array.from({ length: count }, (_, i): [string, TreeNode] => [`f${i}`, file('x')]);
      const one = (i: number) =>
        directory([
          ...files(2),
          ['lib', directory([...files(more && i === 90 ? 5 : 4), ['deep', directory(files(6))]])],
        ]);
      const all = Array.from({ length: 100 }, (_, i): [string, TreeNode] => [`p${String(i).padStart(2, '0')}`, one(i)]);
      return directory({ app: directory({ modules: directory(all) }) });
    };
    const [before, after] = [await write(modules(false)), await write(modules(true))];
    const end = Math.min(before.plan.metadataBytes, after.plan.metadataBytes);
    let fresh = 0;
    for (let at = 0; at < end; at += 4096) {
      if (!before.bytes.subarray(at, at + 4096).equals(after.bytes.subarray(at, at + 4096))) fresh++;
    }
    // The superblock, the listing of the modules, and what lies behind the place: a tenth.
    expect(end / 4096).toBeGreaterThan(20);
    expect(fresh).toBeLessThan((end / 4096) * 0.25);
  });

  it('lays the files of a Debian package together, wherever they lie in the tree', async () => {
    const tree = (withPackage: boolean) => {
      const small = (i: number): [string, TreeNode] => [`file-${i}`, file(text(i, 9000))];
      const lists: [string, TreeNode][] = [
        [
          'base.list',
          file(Array.from({ length: 200 }, (_, i) => `/usr/lib/file-${i}\n/usr/share/file-${i + 200}\n`).join('')),
        ],
      ];
      const own = (i: number): [string, TreeNode][] => (withPackage ? [[`file-1${i}-new`, file(text(i, 40_000))]] : []);
      if (withPackage) lists.push(['new:amd64.list', file('/.\n/lib/file-19001-new\n/usr/share/file-19002-new\n')]);
      return directory({
        lib: { kind: 'symlink', meta: meta(), target: '/usr/lib' },
        usr: directory({
          lib: directory([...Array.from({ length: 200 }, (_, i) => small(i)), ...own(9001)]),
          share: directory([...Array.from({ length: 200 }, (_, i) => small(i + 200)), ...own(9002)]),
        }),
        var: directory({ lib: directory({ dpkg: directory({ info: directory(lists) }) }) }),
      });
    };
    const before = new Set(await segments(tree(false)));
    const fresh = (await segments(tree(true))).filter((segment) => !before.has(segment));
    // Its own group: its files at both places, its list, and no file of the other package.
    expect(fresh).toHaveLength(1);
    for (const i of [9001, 9002]) expect(fresh[0]).toContain(`${i} ${i} `);
    expect(fresh[0]).not.toContain(' 5 5 ');
  });

  it('cuts large programs in pieces of one size', async () => {
    const program = Buffer.concat([Buffer.from('\x7fELF', 'latin1'), text(1, 5_000_000)]);
    const { plan, cuts } = await write(directory({ a: file(program), b: file(text(2, 5_000_000)) }));
    const data = cuts.filter((cut) => cut >= plan.metadataBytes).map((cut) => cut - plan.metadataBytes);
    const pieces = Math.ceil(program.length / 245_760);
    expect(data.slice(0, pieces)).toEqual(Array.from({ length: pieces }, (_, i) => i * 245_760));
    expect(data).toHaveLength(pieces + 1);
  });
});

describe('planErofs refuses', () => {
  const refused: [string, DirectoryNode][] = [
    ['a name with a slash', directory({ 'a/b': file('') })],
    ['a name with a NUL', directory({ 'a\0': file('') })],
    ['a name ..', directory({ '..': file('') })],
    ['an empty name', directory({ '': file('') })],
    ['a name of 256 bytes', directory({ ['n'.repeat(256)]: file('') })],
    ['a long link target', directory({ a: { kind: 'symlink', meta: meta(), target: 'a'.repeat(4096) } })],
    ['an unknown xattr', directory({ a: file('', { xattrs: [{ name: 'bogus.x', value: noise(1, 1) }] }) })],
    ['a large xattr', directory({ a: file('', { xattrs: [{ name: 'user.x', value: new Uint8Array(65_536) }] }) })],
    ['a device number', directory({ a: { kind: 'block-device', meta: meta(), major: 4096, minor: 0 } })],
    ['an owner of 2^32 - 1', directory({ a: file('', { uid: 0xffff_ffff }) })],
    [
      'a file of 17 TiB',
      directory({
        a: {
          kind: 'file',
          meta: meta(),
          sizeBytes: 17 * 2 ** 40,
          extents: [{ fileOffset: 0, lengthBytes: 17 * 2 ** 40, blob: memoryBlob(new Uint8Array(0)), blobOffset: 0 }],
        },
      }),
    ],
  ];
  it.each(refused)('%s', async (_, root) => {
    await expect(planErofs(root, { hash: testHash })).rejects.toMatchObject({ code: 'ROOTFS_UNSUPPORTED' });
  });

  it('a directory with two names', async () => {
    const inner = directory();
    await expect(planErofs(directory({ a: inner, b: inner }), { hash: testHash })).rejects.toMatchObject({
      code: 'ROOTFS_UNSUPPORTED',
    });
  });

  it('to go on after an abort', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(planErofs(directory(), { hash: testHash, signal })).rejects.toThrow('enough');
    const plan = await planErofs(directory({ a: file('x') }), { hash: testHash });
    await expect(collect(plan.pieces({ signal }))).rejects.toThrow('enough');
  });

  it('a layer that is shorter than the tree says', async () => {
    const short: FileNode = {
      ...file('abcdef'),
      sizeBytes: 9,
      extents: [{ ...file('abcdef').extents[0]!, lengthBytes: 9 }],
    };
    await expect(
      planErofs(directory({ short }), { hash: testHash }).then((plan) => collect(plan.pieces())),
    ).rejects.toMatchObject({
      code: 'INTERNAL',
    });
  });
});
