import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import { describe, expect, it, vi } from 'vitest';

import { checkExt4 } from './check-ext4.ts';
import { readExt4 } from './ext4-read.ts';
import { writeExt4 } from './ext4-write.ts';
import { fileAccess } from './file-access.fixture.ts';
import { compareMount, withMount } from './mounted.fixture.ts';
import { privateFolder } from './private-folder.ts';
import { runToolDirectly } from './run-tool.ts';
import { describeImage, describeSource, directory, file, meta } from './trees.fixture.ts';
import type { DirectoryNode, TreeNode } from './tree.ts';

vi.setConfig({ testTimeout: 120_000 });

const hasTools = (await findProgram('debugfs')) !== undefined && (await findProgram('mkfs.ext4')) !== undefined;
const canMount = process.getuid?.() === 0 && (await findProgram('getfattr')) !== undefined;

/** Many names for few inodes: what debugfs takes long for is left out. */
function linksTo(nodes: readonly TreeNode[], count: number, bytes: number): [string, TreeNode][] {
  return Array.from({ length: count }, (_, i) => [`${i}`.padEnd(bytes, 'n'), nodes[i % nodes.length]!]);
}

async function flagsOf(image: string, path: string): Promise<number> {
  const { stdout } = await run('debugfs', ['-R', `stat ${path}`, image]);
  return Number.parseInt(/Flags: 0x([0-9a-f]+)/.exec(stdout.toString())![1]!, 16);
}

/** EXT4_INDEX_FL. */
const HAS_INDEX = 0x1000;

describe.skipIf(!hasTools)('[backend:e2fsprogs] writeExt4 and large directories', () => {
  const elsewhere = file('first name elsewhere');
  const everyKind: [string, TreeNode][] = Array.from({ length: 1000 }, (_, i) => {
    const kinds: TreeNode[] = [
      file(`file ${i}`, { uid: i }),
      { kind: 'symlink', meta: meta({ mode: 0o777 }), target: i % 2 === 0 ? 'short' : 'long/'.repeat(20) },
      directory(i % 2 === 0 ? { inside: file(`inside ${i}`) } : {}),
      { kind: 'fifo', meta: meta({ mode: 0o600 }) },
      { kind: 'socket', meta: meta() },
      { kind: 'character-device', meta: meta(), major: 4095, minor: 1_048_575 },
      { kind: 'block-device', meta: meta(), major: 8, minor: 1 },
      elsewhere,
    ];
    return [`${i} "\\ \xff${i % 10 === 0 ? '\n' : ''}`.padEnd(40, 'e'), kinds[i % kinds.length]!];
  });
  const tree = directory({
    '1-elsewhere': elsewhere,
    'a-large': directory([...everyKind, ['.0', file('what is spare elsewhere')]], { mode: 0o1777, uid: 7 }),
    'b-small': directory([['again', everyKind[0]![1]]]),
    'c-names': directory(linksTo([file('one'), file('two')], 9000, 255)),
  });

  it('writes them with an index that e2fsck finds right, twice the same', async () => {
    await using folder = await privateFolder();
    const [one, two] = [join(folder.path, 'one'), join(folder.path, 'two')];
    await writeExt4(tree, { outFile: one });
    await checkExt4(one, runToolDirectly);
    expect((await flagsOf(one, '/a-large')) & HAS_INDEX).toBe(HAS_INDEX);
    expect((await flagsOf(one, '/c-names')) & HAS_INDEX).toBe(HAS_INDEX);
    expect((await flagsOf(one, '/b-small')) & HAS_INDEX).toBe(0);
    // Over 507 blocks of names: the root of the index points to nodes.
    const shown = (await run('debugfs', ['-R', 'stat /c-names', one])).stdout.toString();
    expect(Number(/Size: (\d+)\n/.exec(shown)![1])).toBeGreaterThan(508 * 4096);
    await writeExt4(tree, { outFile: two });
    const digest = async (path: string) =>
      createHash('sha256')
        .update(await readFile(path))
        .digest('hex');
    expect(await digest(one)).toBe(await digest(two));
    await using source = await fileAccess(one);
    expect(await describeImage(await readExt4(source))).toEqual(await describeSource(tree));
  });

  it.skipIf(!canMount)('shows the kernel every name', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const { 'c-names': names, ...rest } = Object.fromEntries(tree.entries) as Record<string, DirectoryNode>;
    const few = directory({ ...rest, 'c-names': directory([...names!.entries].slice(0, 800)) });
    await writeExt4(few, { outFile: path });
    await withMount('ext4', path, (target) => compareMount(few, target, ['lost+found']));
  });

  it('lets the root and lost+found be large', async () => {
    await using folder = await privateFolder();
    const shared = file('shared');
    const roots: DirectoryNode[] = [
      directory(linksTo([shared], 2000, 30)),
      directory([...linksTo([shared], 2000, 30), ['lost+found', directory({ found: file('found') }, { mode: 0o711 })]]),
      directory({ 'lost+found': directory([...linksTo([shared], 2000, 30), ['own', file('own')]]) }),
    ];
    for (const [i, root] of roots.entries()) {
      const path = join(folder.path, String(i));
      await writeExt4(root, { outFile: path });
      await checkExt4(path, runToolDirectly);
      await using source = await fileAccess(path);
      expect(await describeImage(await readExt4(source))).toEqual(await describeSource(root));
    }
  });

  it('takes a hundred thousand names in a directory', async () => {
    await using folder = await privateFolder();
    const path = join(folder.path, 'image');
    const nodes = Array.from({ length: 4 }, (_, i) => file(`node ${i}`));
    const root = directory({ d: directory(linksTo(nodes, 100_000, 12)) });
    const { tries } = await writeExt4(root, { outFile: path });
    expect(tries).toBeLessThanOrEqual(2);
    await checkExt4(path, runToolDirectly);
    await using source = await fileAccess(path);
    const image = await readExt4(source);
    const d = image.root.entries.get('d');
    expect(d?.kind === 'directory' ? d.entries.size : 0).toBe(100_000);
  });
});
