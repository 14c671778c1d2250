import { chmod, chown, link, lutimes, mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';

import { findProgram, run } from '@decant/core/node';
import { createScratch, type DirectoryNode, type FileNode, type Scratch } from '@decant/rootfs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { rootOfDirectory, rootOfTar } from './image-transfer-root.ts';

const [tar, setfattr] = await Promise.all(['tar', 'setfattr'].map(findProgram));
const isRoot = process.getuid?.() === 0;

let directory: string;
let scratch: Scratch;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'root-source-'));
  scratch = await createScratch(join(directory, 'scratch'));
});
afterEach(async () => {
  await scratch[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

function textOf(file: FileNode): string {
  const bytes = Buffer.alloc(file.sizeBytes);
  for (const { fileOffset, lengthBytes, blob, blobOffset } of file.extents) {
    blob.readSync(bytes.subarray(fileOffset, fileOffset + lengthBytes), blobOffset);
  }
  return bytes.toString('latin1');
}

describe.skipIf(tar === undefined)('[backend:tar] root filesystems in directories and archives', () => {
  it('refuses an archive without a byte, compressed or not, and takes one of zeros for an empty tree', async () => {
    const file = join(directory, 'archive');
    for (const bytes of [Buffer.alloc(0), gzipSync('')]) {
      await writeFile(file, bytes);
      await expect(rootOfTar(file).flatten({ scratch })).rejects.toMatchObject({
        code: 'OCI_SOURCE_INVALID',
        message: expect.stringContaining(`"${file}" is empty`) as string,
        hint: expect.any(String) as string,
      });
    }
    await writeFile(file, Buffer.alloc(10_240));
    expect((await rootOfTar(file).flatten({ scratch })).root.entries.size).toBe(0);
  });

  it('names the file that is no archive, and says what to do', async () => {
    const file = join(directory, 'text');
    await writeFile(file, 'hello\n');
    await expect(rootOfTar(file).flatten({ scratch })).rejects.toMatchObject({
      code: 'LAYER_INVALID',
      message: expect.stringContaining(`("${file}")`) as string,
      hint: expect.any(String) as string,
    });
  });

  it('reads a directory as it is on disk', async () => {
    const root = join(directory, 'root');
    await mkdir(join(root, 'etc'), { recursive: true });
    await writeFile(join(root, 'etc/a'), 'hello');
    await link(join(root, 'etc/a'), join(root, 'etc/b'));
    await symlink('/etc/a', join(root, 'link'));
    await writeFile(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0x0a, 0x2d])]), 'odd');
    await writeFile(join(root, '-rf'), '');
    await writeFile(join(root, '.wh.etc'), '');
    await writeFile(join(root, 'sparse'), 'x');
    await truncate(join(root, 'sparse'), 50_000_000);
    await chmod(join(root, 'etc/a'), 0o4751);
    if (isRoot) await chown(join(root, 'etc/a'), 4_000_000, 7);
    if (setfattr !== undefined) await run(setfattr, ['-n', 'user.note', '-v', 'kept', join(root, 'etc/a')]);
    if (isRoot) await chmod(join(root, 'etc/a'), 0o4751);
    await lutimes(join(root, 'etc/a'), 1_000_000_000.25, 1_000_000_000.25);
    await chmod(root, 0o711);
    const source = await rootOfDirectory(root, { scratchDirectory: directory });
    const tree = (await source.flatten({ scratch })).root;
    expect([...tree.entries.keys()].sort()).toEqual(['-rf', '.wh.etc', 'etc', 'link', 'sparse', '\u00ff\n-']);
    expect(tree.meta.mode).toBe(0o711);
    const etc = tree.entries.get('etc') as DirectoryNode;
    const file = etc.entries.get('a') as FileNode;
    expect(etc.entries.get('b')).toBe(file);
    expect(textOf(file)).toBe('hello');
    const owner = isRoot ? { uid: 4_000_000, gid: 7 } : {};
    expect(file.meta).toMatchObject({
      ...owner,
      mode: 0o4751,
      mtimeSeconds: 1_000_000_000,
      mtimeNanoseconds: 250_000_000,
    });
    const notes = file.meta.xattrs
      .filter(({ name }) => name === 'user.note')
      .map(({ value }) => Buffer.from(value).toString());
    expect(notes).toEqual(setfattr === undefined ? [] : ['kept']);
    expect(tree.entries.get('link')).toMatchObject({ kind: 'symlink', target: '/etc/a' });
    const sparse = tree.entries.get('sparse') as FileNode;
    expect(sparse.sizeBytes).toBe(50_000_000);
    expect(scratch.sizeBytes).toBeLessThan(1_000_000);
  });

  it('says what cannot be read', async () => {
    await writeFile(join(directory, 'file'), 'x');
    for (const path of [join(directory, 'missing'), join(directory, 'file')]) {
      await expect(rootOfDirectory(path, { scratchDirectory: directory })).rejects.toMatchObject({
        code: 'OCI_SOURCE_INVALID',
      });
    }
    for (const path of [join(directory, 'missing'), directory]) {
      await expect(rootOfTar(path).flatten({ scratch })).rejects.toMatchObject({ code: 'OCI_SOURCE_INVALID' });
    }
    await expect(rootOfTar(join(directory, 'file')).flatten({ scratch })).rejects.toMatchObject({
      code: 'LAYER_INVALID',
    });
  });

  it('reads archives of tar, plain and compressed, and refuses a bomb', async () => {
    await mkdir(join(directory, 'root'));
    await writeFile(join(directory, 'root/a'), 'hello');
    const { stdout } = await run(tar!, ['-C', join(directory, 'root'), '-cf', '-', '.']);
    for (const [name, bytes] of [
      ['p', stdout],
      ['g', gzipSync(stdout)],
      ['z', zstdCompressSync(stdout)],
    ] as const) {
      await writeFile(join(directory, name), bytes);
      const { root } = await rootOfTar(join(directory, name)).flatten({ scratch });
      expect(textOf(root.entries.get('a') as FileNode)).toBe('hello');
    }
    await writeFile(
      join(directory, 'bomb'),
      zstdCompressSync(Buffer.concat([stdout.subarray(0, 512), Buffer.alloc(300_000_000)])),
    );
    await expect(rootOfTar(join(directory, 'bomb')).flatten({ scratch })).rejects.toMatchObject({
      code: expect.stringMatching(/LIMIT_EXCEEDED|LAYER_INVALID/),
    });
  });
});
