import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, mkdir, open, readdir, readlink, symlink, writeFile, link } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { checkErofs } from './check-erofs.ts';
import { planErofs } from './erofs-plan.ts';
import { readErofs } from './erofs-read.ts';
import { fileAccess } from './file-access.fixture.ts';
import { privateFolder } from './private-folder.ts';
import { runToolDirectly } from './run-tool.ts';
import {
  anyTree,
  collect,
  contentOf,
  describeImage,
  directory,
  file,
  memoryAccess,
  memoryBlob,
  meta,
  noise,
  testHash,
} from './trees.fixture.ts';
import { sortedEntries, type DirectoryNode, type TreeNode } from './tree.ts';

const fsck = await findProgram('fsck.erofs');
const mkfs = await findProgram('mkfs.erofs');
const mount = await findProgram('mount');
const getfattr = await findProgram('getfattr');
const isRoot = process.getuid?.() === 0;

async function write(root: DirectoryNode): Promise<Buffer> {
  return (await collect((await planErofs(root, { hash: testHash })).pieces())).bytes;
}

describe.skipIf(fsck === undefined)('[backend:erofs-utils] fsck.erofs', () => {
  it('finds random trees clean, from their metadata blocks alone', async () => {
    await fc.assert(
      fc.asyncProperty(anyTree, async (root) => {
        const { tool } = await checkErofs(memoryAccess(await write(root)), { runTool: runToolDirectly });
        expect(tool).toBe('passed');
      }),
      { numRuns: 40 },
    );
  });

  it('extracts the content that went in', async () => {
    await using folder = await privateFolder();
    const root = directory({
      large: file(noise(1, 700_001)),
      small: file('small'),
      d: directory(Array.from({ length: 900 }, (_, i): [string, TreeNode] => [`n${i}`, file(`${i}`)])),
    });
    const image = join(folder.path, 'image');
    await writeFile(image, await write(root));
    await run('fsck.erofs', [`--extract=${join(folder.path, 'out')}`, image], { timeoutMs: 60_000 });
    const { stdout } = await run('sha256sum', ['large', 'small', 'd/n899'], { cwd: join(folder.path, 'out') });
    const digests = stdout
      .toString()
      .split('\n')
      .map((line) => line.slice(0, 64));
    const sha = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');
    expect(digests.slice(0, 3)).toEqual([sha(noise(1, 700_001)), sha('small'), sha('899')]);
  });
});

describe.skipIf(mkfs === undefined)('[backend:erofs-utils] mkfs.erofs', () => {
  it('makes images that the strict reader reads', async () => {
    await using folder = await privateFolder();
    const tree = join(folder.path, 'tree');
    await mkdir(join(tree, 'sub', 'empty'), { recursive: true });
    await writeFile(join(tree, 'sub', 'tail'), noise(1, 5000));
    await writeFile(join(tree, 'whole'), noise(2, 8192));
    await link(join(tree, 'whole'), join(tree, 'sub', 'again'));
    await symlink('../whole', join(tree, 'sub', 'link'));
    for (let i = 0; i < 300; i++) await writeFile(join(tree, 'sub', 'empty', `file-number-${i}`), `${i}`);
    for (const chunks of [[], ['--chunksize=4096']]) {
      const path = join(folder.path, `image${chunks.length}`);
      await run('mkfs.erofs', ['-T', '1700000000', ...chunks, path, tree], { timeoutMs: 60_000 });
      await using source = await fileAccess(path);
      const image = await readErofs(source);
      const sub = image.root.entries.get('sub');
      if (sub?.kind !== 'directory') throw new Error('no directory');
      const tail = sub.entries.get('tail');
      if (tail?.kind !== 'file') throw new Error('no file');
      expect(Buffer.from(await image.readFile(tail, 0, 5000)).equals(noise(1, 5000))).toBe(true);
      expect(sub.entries.get('again')).toBe(image.root.entries.get('whole'));
      expect(sub.entries.get('link')).toMatchObject({ target: '../whole' });
      expect((await describeImage(image)).length).toBe(307);
    }
  });
});

describe.skipIf(mount === undefined || getfattr === undefined || !isRoot)('[backend:erofs-kernel] a mount', () => {
  it('shows everything that the tree holds', async () => {
    const root = everything();
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const target = join(folder.path, 'mnt');
    await mkdir(target);
    await writeFile(path, await write(root));
    await run('mount', ['-t', 'erofs', '-o', 'ro,loop', path, target], { timeoutMs: 30_000 });
    try {
      await compare(root, target);
      const hole = await open(join(target, 'sparse'), 'r');
      await hole.close();
    } finally {
      await run('umount', [target], { timeoutMs: 30_000 });
    }
  });
});

function everything(): DirectoryNode {
  const shared = file('hard link', { mode: 0o4755 });
  const xattrs = [
    { name: 'security.capability', value: Buffer.from('0100000200040000000000000000000000000000', 'hex') },
    { name: 'user.large', value: noise(4, 9000) },
  ];
  return directory(
    {
      shared,
      'bytes-\xff\xfe': file('bytes'),
      ['n'.repeat(255)]: file('long'),
      'new\nline "q" \\': file('odd'),
      empty: file(''),
      old: file('old', { mtimeSeconds: -86_400 * 365 * 40, mtimeNanoseconds: 5 }),
      late: file('late', { mtimeSeconds: 7_258_118_400, mtimeNanoseconds: 999_999_999 }),
      big: file(noise(7, 3_000_000), { uid: 4_000_000_000, gid: 3_000_000_000 }),
      caps: file('caps', { xattrs }),
      link: { kind: 'symlink', meta: meta({ mode: 0o777, uid: 5 }), target: `/${'t'.repeat(200)}` },
      longlink: { kind: 'symlink', meta: meta({ mode: 0o777 }), target: 'u'.repeat(4095) },
      cdev: { kind: 'character-device', meta: meta({ mode: 0o666 }), major: 4095, minor: 1_048_575 },
      bdev: { kind: 'block-device', meta: meta({ mode: 0o660 }), major: 8, minor: 1 },
      fifo: { kind: 'fifo', meta: meta() },
      socket: { kind: 'socket', meta: meta({ mode: 0o1777 }) },
      sparse: {
        kind: 'file',
        meta: meta(),
        sizeBytes: 50_000_001,
        extents: [
          { fileOffset: 0, lengthBytes: 10, blob: memoryBlob(noise(1, 10)), blobOffset: 0 },
          { fileOffset: 30_000_001, lengthBytes: 5000, blob: memoryBlob(noise(2, 5000)), blobOffset: 0 },
        ],
      },
      dir: directory(
        {
          inner: directory({ 'same-inode': shared }, { mode: 0o2775 }),
          many: directory(
            Array.from({ length: 3000 }, (_, i): [string, TreeNode] => [`entry-${i * 31}`, file(`${i}`)]),
          ),
        },
        { mode: 0o1777, xattrs: [{ name: 'user.d', value: Buffer.from('v') }] },
      ),
    },
    { mode: 0o750, uid: 1, gid: 2 },
  );
}

const LINUX_TYPES = {
  file: 0o10,
  directory: 0o4,
  'character-device': 0o2,
  'block-device': 0o6,
  fifo: 0o1,
  socket: 0o14,
  symlink: 0o12,
};

async function compare(root: DirectoryNode, target: string): Promise<void> {
  const inodes = new Map<TreeNode, bigint>();
  const counts = new Map<TreeNode, number>();
  const count = (node: TreeNode): void => {
    counts.set(node, (counts.get(node) ?? 0) + 1);
    if (node.kind === 'directory') for (const child of node.entries.values()) count(child);
  };
  count(root);
  const visit = async (node: TreeNode, path: Buffer): Promise<void> => {
    const stat = await lstat(path, { bigint: true });
    const { meta } = node;
    const nanoseconds = BigInt(meta.mtimeSeconds) * 1_000_000_000n + BigInt(meta.mtimeNanoseconds);
    const label = path.toString('latin1').slice(target.length);
    expect([label, Number(stat.mode).toString(8), stat.uid, stat.gid, stat.mtimeNs]).toEqual([
      label,
      ((LINUX_TYPES[node.kind] << 12) | meta.mode).toString(8),
      BigInt(meta.uid),
      BigInt(meta.gid),
      nanoseconds,
    ]);
    const subdirectories =
      node.kind === 'directory' ? [...node.entries.values()].filter(({ kind }) => kind === 'directory').length : 0;
    expect([label, stat.nlink]).toEqual([
      label,
      BigInt(node.kind === 'directory' ? 2 + subdirectories : counts.get(node)!),
    ]);
    expect(inodes.get(node) ?? stat.ino).toBe(stat.ino);
    inodes.set(node, stat.ino);
    if (node.kind === 'file') {
      expect(stat.size).toBe(BigInt(node.sizeBytes));
      const hash = createHash('sha256');
      for await (const part of createReadStream(path)) hash.update(part as Buffer);
      expect([label, hash.digest('hex')]).toEqual([
        label,
        createHash('sha256')
          .update(await contentOf(node))
          .digest('hex'),
      ]);
    } else if (node.kind === 'symlink') {
      expect((await readlink(path, { encoding: 'buffer' })).toString('latin1')).toBe(node.target);
    } else if (node.kind === 'character-device' || node.kind === 'block-device') {
      const { major, minor } = node;
      const rdev = ((BigInt(major) & 0xfffn) << 8n) | (BigInt(minor) & 0xffn) | ((BigInt(minor) & ~0xffn) << 12n);
      expect([label, stat.rdev]).toEqual([label, rdev]);
    }
    for (const { name, value } of meta.xattrs) {
      const { stdout } = await run('getfattr', [
        '-h',
        '--only-values',
        '--absolute-names',
        '-n',
        name,
        path.toString(),
      ]);
      expect([label, name, stdout.equals(value)]).toEqual([label, name, true]);
    }
    if (node.kind !== 'directory') return;
    const names = (await readdir(path, { encoding: 'buffer' })).map((name) => name.toString('latin1')).sort();
    expect(names).toEqual(sortedEntries(node).map(([name]) => name));
    for (const [name, child] of sortedEntries(node)) {
      await visit(child, Buffer.concat([path, Buffer.from(`/${name}`, 'latin1')]));
    }
  };
  await visit(root, Buffer.from(target));
}
