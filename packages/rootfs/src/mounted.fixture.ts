import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, mkdir, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '@decant/core/node';
import { expect } from 'vitest';

import { privateFolder } from './private-folder.ts';
import { contentOf, directory, file, memoryBlob, meta, noise } from './trees.fixture.ts';
import { sortedEntries, type DirectoryNode, type TreeNode } from './tree.ts';

/** Mounts an image read-only for as long as `look` runs. */
export async function withMount(type: string, image: string, look: (target: string) => Promise<void>): Promise<void> {
  await using folder = await privateFolder();
  const target = join(folder.path, 'mnt');
  await mkdir(target);
  await run('mount', ['-t', type, '-o', 'ro,loop', image, target], { timeoutMs: 30_000 });
  try {
    await look(target);
  } finally {
    await run('umount', [target], { timeoutMs: 30_000 });
  }
}

/** A tree with every kind of node and metadata; `largeBytes` is the size of its largest xattr. */
export function everything(largeBytes: number): DirectoryNode {
  const shared = file('hard link', { mode: 0o4755 });
  const xattrs = [
    { name: 'security.capability', value: Buffer.from('0100000200040000000000000000000000000000', 'hex') },
    { name: 'user.large', value: noise(4, largeBytes) },
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
      'more-caps': file('more', { xattrs }),
      'other-caps': file('other', { xattrs: xattrs.slice(0, 1), mode: 0o755 }),
      link: { kind: 'symlink', meta: meta({ mode: 0o777, uid: 5 }), target: `/${'t'.repeat(200)}` },
      longlink: { kind: 'symlink', meta: meta({ mode: 0o777 }), target: 'u'.repeat(4095) },
      cdev: { kind: 'character-device', meta: meta({ mode: 0o666 }), major: 4095, minor: 1_048_575 },
      bdev: { kind: 'block-device', meta: meta({ mode: 0o660 }), major: 8, minor: 1 },
      fifo: { kind: 'fifo', meta: meta() },
      socket: { kind: 'socket', meta: meta({ mode: 0o1777 }) },
      sparse: {
        kind: 'file',
        meta: meta(),
        sizeBytes: 90_000_001,
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

/** Compares what a mount shows with the tree; `extra` names are directories that only the root of the mount has. */
export async function compareMount(root: DirectoryNode, target: string, extra: readonly string[] = []): Promise<void> {
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
      BigInt(node.kind === 'directory' ? 2 + subdirectories + (node === root ? extra.length : 0) : counts.get(node)!),
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
    const names = (await readdir(path, { encoding: 'buffer' }))
      .map((name) => name.toString('latin1'))
      .filter((name) => node !== root || !extra.includes(name))
      .sort();
    expect(names).toEqual(sortedEntries(node).map(([name]) => name));
    for (const [name, child] of sortedEntries(node)) {
      await visit(child, Buffer.concat([path, Buffer.from(`/${name}`, 'latin1')]));
    }
  };
  await visit(root, Buffer.from(target));
}
