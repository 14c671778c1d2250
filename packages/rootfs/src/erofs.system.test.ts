import { createHash } from 'node:crypto';
import { link, mkdir, open, readdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { isDecantError } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { mutate, numbers, smallImage } from './broken.fixture.ts';
import { checkErofs } from './check-erofs.ts';
import { planErofs } from './erofs-plan.ts';
import { readErofs } from './erofs-read.ts';
import { fileAccess } from './file-access.fixture.ts';
import { privateFolder } from './private-folder.ts';
import { runToolDirectly } from './run-tool.ts';
import { compareMount, everything, withMount } from './mounted.fixture.ts';
import {
  anyTree,
  collect,
  describeImage,
  directory,
  file,
  memoryAccess,
  meta,
  noise,
  testHash,
} from './trees.fixture.ts';
import type { BlobReader, DirectoryNode, TreeNode } from './tree.ts';

const fsck = await findProgram('fsck.erofs');
const mkfs = await findProgram('mkfs.erofs');
const mount = await findProgram('mount');
const getfattr = await findProgram('getfattr');
const isRoot = process.getuid?.() === 0;

const MARK_BYTES = 65_536;
const MANY = file('one of many');
const MIB_OF_ZEROS = Buffer.alloc(2 ** 20);

function isZero(bytes: Uint8Array): boolean {
  return MIB_OF_ZEROS.subarray(0, bytes.length).equals(bytes);
}

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

  it('finds nothing wrong with what the strict reader accepts of broken images', async () => {
    const { bytes, metadataBytes } = await smallImage();
    const random = numbers(7);
    let accepted = 0;
    for (let i = 0; i < 400; i++) {
      const changed = memoryAccess(mutate(bytes, metadataBytes, random));
      const check = await checkErofs(changed, { runTool: runToolDirectly }).catch((error: unknown) => error);
      // A refusal by the tool carries its exit code: the strict reader must have been the one to refuse.
      if (isDecantError(check)) expect(check.details).not.toHaveProperty('exitCode');
      else accepted++;
    }
    expect(accepted).toBeGreaterThan(0);
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
    await run('fsck.erofs', [`--extract=${join(folder.path, 'out')}`, image], { timeoutMs: 240_000 });
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
      await run('mkfs.erofs', ['-T', '1700000000', ...chunks, path, tree], { timeoutMs: 240_000 });
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
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    await writeFile(path, await write(everything(9000)));
    await withMount('erofs', path, (target) => compareMount(everything(9000), target));
  });

  it('shows a file over 4 GiB, with and without holes, and a directory of 100,000 names', async () => {
    await using folder = await privateFolder();
    const sizeBytes = 4 * 2 ** 30 + 70_001;
    // Zeros but for marks that say where they are.
    const marks: BlobReader = {
      readSync(target, position) {
        target.fill(0);
        for (let at = Math.ceil(position / MARK_BYTES) * MARK_BYTES; at < position + target.length; at += MARK_BYTES) {
          Buffer.from(`${at}`.padEnd(20, '.')).copy(target, at - position);
        }
        return target.length;
      },
    };
    const whole = { fileOffset: 0, lengthBytes: sizeBytes, blob: marks, blobOffset: 0 };
    const end = { ...whole, fileOffset: sizeBytes - 70_001, lengthBytes: 70_001, blobOffset: sizeBytes - 70_001 };
    const names = Array.from({ length: 100_000 }, (_, i): [string, TreeNode] => [
      `entry-${(i * 7919) % 100_000}`,
      MANY,
    ]);
    const root = directory({
      whole: { kind: 'file', meta: meta(), sizeBytes, extents: [whole] },
      holes: { kind: 'file', meta: meta(), sizeBytes, extents: [end] },
      many: directory(names),
    });
    const path = join(folder.path, 'image');
    const plan = await planErofs(root, { hash: testHash });
    await using image = await open(path, 'wx');
    await image.truncate(plan.sizeBytes);
    let position = 0;
    for await (const piece of plan.pieces()) {
      if (piece.type === 'zeros') position += piece.lengthBytes;
      if (piece.type !== 'data') continue;
      if (!isZero(piece.bytes)) await image.write(piece.bytes, 0, piece.bytes.length, position);
      position += piece.bytes.length;
    }
    await image.close();
    await withMount('erofs', path, async (target) => {
      for (const name of ['whole', 'holes']) {
        await using source = await fileAccess(join(target, name));
        expect(source.sizeBytes).toBe(sizeBytes);
        for (const offset of [0, 2 ** 31 - 4096, 2 ** 32 - 4096, 2 ** 32, sizeBytes - 70_001, sizeBytes - 4096]) {
          const wanted = new Uint8Array(4096);
          if (name === 'whole' || offset >= end.fileOffset) marks.readSync(wanted, offset);
          const found = await source.read(offset, 4096);
          expect(Buffer.from(found).equals(wanted), `${name} at ${offset}`).toBe(true);
        }
      }
      const found = await readdir(join(target, 'many'));
      expect(found.sort()).toEqual(names.map(([name]) => name).sort());
      expect((await stat(join(target, 'many/entry-99999'))).nlink).toBe(100_000);
    });
  });
});
