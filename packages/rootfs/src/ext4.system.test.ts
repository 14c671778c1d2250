import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, mkdir, open, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import * as fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';

import { checkExt4 } from './check-ext4.ts';
import { detectFilesystem } from './detect-filesystem.ts';
import { writeExt4 } from './ext4-write.ts';
import { fileAccess } from './file-access.fixture.ts';
import { compareMount, everything, withMount } from './mounted.fixture.ts';
import { privateFolder } from './private-folder.ts';
import { runToolDirectly, type RunTool } from './run-tool.ts';
import { anyTree, directory, file, memoryBlob, meta, noise } from './trees.fixture.ts';
import type { DirectoryNode, TreeNode } from './tree.ts';

const hasTools = (await findProgram('debugfs')) !== undefined && (await findProgram('mkfs.ext4')) !== undefined;
const canMount = process.getuid?.() === 0 && (await findProgram('getfattr')) !== undefined;
const MIB = 1024 * 1024;

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path)) hash.update(part as Buffer);
  return hash.digest('hex');
}

describe.skipIf(!hasTools)('[backend:e2fsprogs] writeExt4', () => {
  it('makes clean, equal and sparse images', async () => {
    await using folder = await privateFolder();
    const [one, two] = [join(folder.path, 'one'), join(folder.path, 'two')];
    const written = await writeExt4(everything(3000), { outFile: one });
    await writeExt4(everything(3000), { outFile: two });
    await checkExt4(one, runToolDirectly);
    expect(await digest(one)).toBe(await digest(two));
    const { size, blocks } = await stat(one);
    expect(size).toBe(written.sizeBytes);
    expect(blocks * 512).toBeLessThan(written.sizeBytes);
    await using source = await fileAccess(one);
    expect(await detectFilesystem(source)).toBe('ext4');
  });

  it('makes the same image wherever file data waits, over several scripts', async () => {
    await using folder = await privateFolder();
    const root = directory(Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`${i}`, file(`${i}`)])));
    const digests: string[] = [];
    let scripts = 0;
    const runTool: RunTool = (command, args, options) => {
      if (command === 'debugfs') scripts++;
      return runToolDirectly(command, args, options);
    };
    for (const [i, name] of ['t', `a name with spaces that is ${'long '.repeat(40)}`].entries()) {
      const tempDir = join(folder.path, name);
      await mkdir(tempDir);
      const outFile = join(folder.path, `image ${i}`);
      await writeExt4(root, { outFile, tempDir, runTool });
      digests.push(await digest(outFile));
    }
    expect(scripts).toBeGreaterThanOrEqual(4);
    expect(digests[1]).toBe(digests[0]);
  });

  it.skipIf(!canMount)('shows everything that the tree holds when mounted', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const acl = '0200000001000700ffffffff04000500ffffffff08000400e803000010000700ffffffff20000500ffffffff';
    const root = everything(3000);
    const withAcl = file('acl', {
      mode: 0o775,
      xattrs: [{ name: 'system.posix_acl_access', value: Buffer.from(acl, 'hex') }],
    });
    const tree = { ...root, entries: new Map<string, TreeNode>([...root.entries, ['acl', withAcl]]) };
    await writeExt4(tree, { outFile: path });
    await withMount('ext4', path, (target) => compareMount(tree, target, ['lost+found']));
  });

  it('makes clean images of any tree it does not refuse', async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(anyTree, async (root) => {
        await using folder = await privateFolder();
        const path = join(folder.path, 'image');
        try {
          await writeExt4(root, { outFile: path });
        } catch (error) {
          expect(error).toMatchObject({ code: 'ROOTFS_UNSUPPORTED' });
          refused++;
          return;
        }
        await checkExt4(path, runToolDirectly);
      }),
      { numRuns: 30, seed: 20_261_122 },
    );
    expect(refused).toBeLessThan(25);
  });

  it('keeps metadata with its inode over many scripts and block groups', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const sub = (d: number) =>
      directory(
        Array.from({ length: 500 }, (_, i): [string, TreeNode] => [
          `${'long-name-'.repeat(6)}${i}`,
          i === 499
            ? file(`file ${d}`, { uid: 1000 + d })
            : { kind: 'fifo', meta: meta({ uid: 500 + i, mode: 0o600 }) },
        ]),
      );
    const root = directory(Array.from({ length: 20 }, (_, d): [string, TreeNode] => [`d${d}`, sub(d)]));
    await writeExt4(root, { outFile: path, diskBytes: 600 * MIB });
    await checkExt4(path, runToolDirectly);
    const shown = await run('debugfs', ['-R', `stat /d19/${'long-name-'.repeat(6)}499`, path]);
    expect(shown.stdout.toString()).toMatch(/User: +1019 /);
    const fifo = await run('debugfs', ['-R', `stat /d17/${'long-name-'.repeat(6)}77`, path]);
    expect(fifo.stdout.toString()).toMatch(/Type: FIFO .*Mode: +0600[\s\S]*User: +577 /);
  });

  it('fills a given size, keeps a given label and uuid, and takes lost+found from the tree', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const uuid = '12345678-1234-4234-8234-123456789abc';
    const root = directory({ 'lost+found': directory({ x: file('found') }, { mode: 0o711 }) });
    const { sizeBytes } = await writeExt4(root, { outFile: path, diskBytes: 64 * MIB, label: 'my disk', uuid });
    expect(sizeBytes).toBe(64 * MIB);
    await checkExt4(path, runToolDirectly);
    const { stdout } = await run('dumpe2fs', ['-h', path]);
    expect(stdout.toString()).toContain('my disk');
    expect(stdout.toString()).toContain(uuid);
    const shown = await run('debugfs', ['-R', 'cat /lost+found/x', path]);
    expect(shown.stdout.toString()).toBe('found');
  });

  it('leaves the free room that is asked for, blocks and inodes', async () => {
    await using folder = await privateFolder();
    const root = directory({ a: file(noise(1, 3 * MIB)), d: directory({ b: file('b') }) });
    for (const freeBytes of [1, 8 * MIB, 700 * MIB]) {
      const path = join(folder.path, `free-${freeBytes}`);
      const written = await writeExt4(root, { outFile: path, freeBytes });
      expect(written.freeBytes).toBeGreaterThanOrEqual(freeBytes);
      expect(written.sizeBytes).toBeLessThan((4 * MIB + freeBytes) * 1.06 + 5 * MIB);
      expect(written.tries).toBeLessThanOrEqual(2);
      await checkExt4(path, runToolDirectly);
      const shown = (await run('dumpe2fs', ['-h', path])).stdout.toString();
      const [, free] = /^Free blocks: +(\d+)$/m.exec(shown)!;
      expect(Number(free) * 4096).toBe(written.freeBytes);
      const [, inodes] = /^Free inodes: +(\d+)$/m.exec(shown)!;
      expect(Number(inodes)).toBeGreaterThan(freeBytes / 16_384);
    }
  });

  it('finds a size at the first or second try for trees of every kind', async () => {
    const many = (count: number, bytes: number) =>
      directory(Array.from({ length: count }, (_, i): [string, TreeNode] => [`file-${i}`, file(noise(i, bytes))]));
    const deep = (levels: number): DirectoryNode => (levels === 0 ? directory() : directory({ d: deep(levels - 1) }));
    const sparse = (sizeBytes: number, step: number): TreeNode => ({
      kind: 'file',
      meta: meta(),
      sizeBytes,
      extents: Array.from({ length: Math.floor(sizeBytes / step) }, (_, i) => ({
        fileOffset: i * step,
        lengthBytes: 4096,
        blob: memoryBlob(noise(i, 4096)),
        blobOffset: 0,
      })),
    });
    const attribute = (bytes: number) => [{ name: 'user.x', value: noise(3, bytes) }];
    const trees: Record<string, DirectoryNode> = {
      empty: directory(),
      'one empty file': directory({ a: file('') }),
      'one byte': directory({ a: file('a') }),
      '1,000 empty files': many(1000, 0),
      '1,000 small files': many(1000, 100),
      '500 files of a page': many(500, 4096),
      '500 files just over a page': many(500, 4097),
      'one of 3 MiB': directory({ a: file(noise(1, 3 * MIB)) }),
      'one of 60 MiB': directory({ a: file(noise(1, 60 * MIB)) }),
      'a hole of 1 TiB': directory({ a: { kind: 'file', meta: meta(), sizeBytes: 2 ** 40, extents: [] } }),
      'every second page a hole': directory({ a: sparse(8 * MIB, 8192) }),
      'far pages': directory({ a: sparse(2 ** 33, 2 ** 24) }),
      '500 folders': directory(
        Array.from({ length: 500 }, (_, i): [string, TreeNode] => [`d${i}`, directory({ x: file('x') })]),
      ),
      '250 levels': deep(250),
      'long names': directory(
        Array.from({ length: 700 }, (_, i): [string, TreeNode] => [`${i}`.padEnd(255, 'n'), file('')]),
      ),
      'long links': directory(
        Array.from({ length: 500 }, (_, i): [string, TreeNode] => [
          `l${i}`,
          { kind: 'symlink', meta: meta(), target: 't'.repeat(1000) },
        ]),
      ),
      'short links': directory(
        Array.from({ length: 1000 }, (_, i): [string, TreeNode] => [
          `l${i}`,
          { kind: 'symlink', meta: meta(), target: 't' },
        ]),
      ),
      'large attributes': directory(
        Array.from({ length: 200 }, (_, i): [string, TreeNode] => [`x${i}`, file('', { xattrs: attribute(3000) })]),
      ),
      'small attributes': directory(
        Array.from({ length: 200 }, (_, i): [string, TreeNode] => [`x${i}`, file('', { xattrs: attribute(20) })]),
      ),
      'devices and pipes': directory(
        Array.from({ length: 200 }, (_, i): [string, TreeNode] => [
          `n${i}`,
          i % 2 === 0
            ? { kind: 'fifo', meta: meta() }
            : { kind: 'character-device', meta: meta(), major: 4095, minor: 1_048_575 },
        ]),
      ),
    };
    expect(Object.keys(trees)).toHaveLength(20);
    await using folder = await privateFolder();
    for (const [name, tree] of Object.entries(trees)) {
      const path = join(folder.path, 'image');
      const { tries, sizeBytes, contentBytes } = await writeExt4(tree, { outFile: path });
      expect(tries, name).toBeLessThanOrEqual(2);
      expect(sizeBytes, name).toBeLessThan(contentBytes * 1.1 + 5 * MIB);
      await checkExt4(path, runToolDirectly);
      await rm(path);
    }
  });

  it('stores later times as the given one', async () => {
    await using folder = await privateFolder();
    const root = directory(
      { late: file('l', { mtimeSeconds: 60, mtimeNanoseconds: 7 }), old: file('o', { mtimeSeconds: 40 }) },
      { mtimeSeconds: 10 },
    );
    const [one, two] = [join(folder.path, 'one'), join(folder.path, 'two')];
    await writeExt4(root, { outFile: one, sourceDateEpoch: 50 });
    const later = directory({ ...Object.fromEntries(root.entries), late: file('l', { mtimeSeconds: 99 }) }, root.meta);
    await writeExt4(later, { outFile: two, sourceDateEpoch: 50 });
    expect(await digest(one)).toBe(await digest(two));
    const time = async (name: string) =>
      /mtime: 0x([0-9a-f]+):([0-9a-f]+)/.exec((await run('debugfs', ['-R', `stat /${name}`, one])).stdout.toString());
    expect((await time('late'))!.slice(1)).toEqual(['00000032', '00000000']);
    expect((await time('old'))![1]).toBe('00000028');
  });

  it('ignores how this machine configures mke2fs', async () => {
    await using folder = await privateFolder();
    const config = join(folder.path, 'mke2fs.conf');
    await writeFile(config, '[defaults]\n\tbase_features = has_journal\n\tinode_size = 128\n\treserved_ratio = 40\n');
    const [one, two] = [join(folder.path, 'one'), join(folder.path, 'two')];
    await writeExt4(directory({ a: file('a') }), { outFile: one });
    vi.stubEnv('MKE2FS_CONFIG', config);
    try {
      await writeExt4(directory({ a: file('a') }), { outFile: two });
    } finally {
      vi.unstubAllEnvs();
    }
    expect(await digest(one)).toBe(await digest(two));
  });

  it('refuses a disk that is too small, and leaves no file', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const root = directory({ a: file(noise(1, 6 * MIB)) });
    for (const diskBytes of [5 * MIB, Math.ceil(6.03 * MIB)]) {
      await expect(writeExt4(root, { outFile: path, diskBytes })).rejects.toMatchObject({ code: 'ROOTFS_NO_SPACE' });
      await expect(access(path)).rejects.toThrow('ENOENT');
    }
    const tiny = writeExt4(directory(), { outFile: path, diskBytes: 65_536 });
    await expect(tiny).rejects.toMatchObject({ code: 'ROOTFS_NO_SPACE' });
  });

  it('does not touch a file that exists', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    await (await open(path, 'wx')).close();
    await expect(writeExt4(directory(), { outFile: path })).rejects.toThrow('EEXIST');
    await access(path);
  });

  it('refuses what ext4 cannot hold', async () => {
    await using folder = await privateFolder();
    const trees: [string, TreeNode][] = [
      ['a', file('', { xattrs: [{ name: 'user.x', value: noise(1, 4500) }] })],
      ['a', file('', { xattrs: [{ name: 'what.x', value: noise(1, 4) }] })],
      ['lost+found', file('')],
      ['a\n\xff', file('')],
      ['a', { kind: 'symlink', meta: meta(), target: '\xff\n' }],
    ];
    for (const [name, node] of trees) {
      const root = directory([[name, node]]);
      await expect(writeExt4(root, { outFile: join(folder.path, 'i') })).rejects.toMatchObject({
        code: 'ROOTFS_UNSUPPORTED',
      });
    }
  });

  it('finds a broken image broken', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    await writeExt4(directory({ a: file('a') }), { outFile: path });
    await using image = await open(path, 'r+');
    await image.write(noise(1, 4096), 0, 4096, 4096);
    await expect(checkExt4(path, runToolDirectly)).rejects.toMatchObject({ code: 'ROOTFS_INVALID' });
  });
});
