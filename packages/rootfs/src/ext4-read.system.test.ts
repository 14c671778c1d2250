import { readFile, truncate } from 'node:fs/promises';
import { join } from 'node:path';

import { isDecantError } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { readExt4 } from './ext4-read.ts';
import { writeExt4 } from './ext4-write.ts';
import { fileAccess } from './file-access.fixture.ts';
import { everything } from './mounted.fixture.ts';
import { privateFolder } from './private-folder.ts';
import {
  anyTree,
  describeImage,
  describeSource,
  directory,
  file,
  memoryAccess,
  memoryBlob,
  meta,
  noise,
} from './trees.fixture.ts';
import type { DirectoryNode, TreeNode } from './tree.ts';

const hasTools = (await findProgram('debugfs')) !== undefined && (await findProgram('mkfs.ext4')) !== undefined;

/** What is read of a tree that was written; undefined when the writer refused it. */
async function readBack(root: DirectoryNode): Promise<string[] | undefined> {
  await using folder = await privateFolder();
  const path = join(folder.path, 'image');
  try {
    await writeExt4(root, { outFile: path });
  } catch (error) {
    expect(error).toMatchObject({ code: 'ROOTFS_UNSUPPORTED' });
    return undefined;
  }
  await using source = await fileAccess(path);
  return await describeImage(await readExt4(source));
}

describe.skipIf(!hasTools)('[backend:e2fsprogs] readExt4', () => {
  it('gives back a tree with everything, with access lists as programs see them', async () => {
    const acl =
      '0200000001000700ffffffff02000600e803000004000500ffffffff08000400e803000010000700ffffffff20000500ffffffff';
    const withAcl = file('acl', {
      mode: 0o775,
      xattrs: [{ name: 'system.posix_acl_access', value: Buffer.from(acl, 'hex') }],
    });
    const root = everything(300);
    // Files that are too large to be compared at once are another test's.
    const kept = [...root.entries].filter(([, node]) => node.kind !== 'file' || node.sizeBytes < 2 ** 26);
    const tree = { ...root, entries: new Map<string, TreeNode>([...kept, ['acl', withAcl]]) };
    expect(await readBack(tree)).toEqual(await describeSource(tree));
  });

  it('gives back any tree that can be written', async () => {
    let read = 0;
    await fc.assert(
      fc.asyncProperty(anyTree, async (root) => {
        const lines = await readBack(root);
        if (lines === undefined) return;
        read++;
        expect(lines).toEqual(await describeSource(root));
      }),
      { numRuns: 15, seed: 20_261_122 },
    );
    expect(read).toBeGreaterThan(2);
  });

  it('reads extents in trees, holes, a large directory and a long target', async () => {
    const page = (n: number) => ({
      fileOffset: n * 8192,
      lengthBytes: 4096,
      blob: memoryBlob(noise(n, 4096)),
      blobOffset: 0,
    });
    const sparse: TreeNode = {
      kind: 'file',
      meta: meta(),
      sizeBytes: 100 * 8192 + 5,
      extents: Array.from({ length: 100 }, (_, n) => page(n)),
    };
    const many = Array.from({ length: 1000 }, (_, n): [string, TreeNode] => [`a-name-of-some-length-${n}`, file('')]);
    const far: TreeNode = { kind: 'symlink', meta: meta({ mode: 0o777 }), target: 'x/'.repeat(1000) };
    const root = directory({ sparse, many: directory(many), far });
    expect(await readBack(root)).toEqual(await describeSource(root));
  });

  it('reads what mkfs.ext4 makes of a directory, and refuses a journal and block maps', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const make = async (features: string) => {
      await run('mkfs.ext4', ['-q', '-F', '-O', features, '-d', import.meta.dirname, path, '32M'], {
        timeoutMs: 120_000,
      });
      await using source = await fileAccess(path);
      const image = await readExt4(source);
      const node = image.root.entries.get('ext4-read.ts');
      return node?.kind === 'file' ? Buffer.from(await image.readFile(node, 0, node.sizeBytes)) : undefined;
    };
    expect(await make('^has_journal,^resize_inode,^metadata_csum_seed,^orphan_file')).toEqual(
      await readFile(join(import.meta.dirname, 'ext4-read.ts')),
    );
    await expect(make('^has_journal,^resize_inode,^extent,^64bit')).rejects.toMatchObject({
      code: 'ROOTFS_UNSUPPORTED',
    });
  });

  it('refuses or reads any mutation, without another kind of error', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const root = directory({
      a: directory({ f: file(noise(1, 9000)), l: { kind: 'symlink', meta: meta(), target: 'f' } }),
    });
    await writeExt4(root, { outFile: path });
    await truncate(path, 2 * 1024 * 1024).catch(() => undefined);
    const bytes = new Uint8Array(await readFile(path));
    // Where there is anything: superblock, descriptors, inodes, directories.
    const used = [...bytes.keys()].filter((at) => bytes[at] !== 0);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(used.length - 1), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 }),
        async (changes) => {
          const changed = bytes.slice();
          for (const [index, value] of changes) changed[used[index]!] = value;
          try {
            await describeImage(await readExt4(memoryAccess(changed)));
          } catch (error) {
            const codes = ['ROOTFS_INVALID', 'ROOTFS_UNSUPPORTED', 'LIMIT_EXCEEDED'] as const;
            expect(codes.some((code) => isDecantError(error, code)) || error instanceof RangeError).toBe(true);
          }
        },
      ),
      { numRuns: 300, seed: 20_261_122 },
    );
    await expect(readExt4(memoryAccess(new Uint8Array(100)))).rejects.toMatchObject({ code: 'ROOTFS_INVALID' });
    await expect(readExt4(memoryAccess(new Uint8Array(10_000)))).rejects.toMatchObject({ code: 'ROOTFS_INVALID' });
  });
});
