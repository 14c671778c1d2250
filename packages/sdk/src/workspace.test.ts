import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { readDirectoryTree } from '@decant/context/node';
import {
  createScratch,
  nodeAt,
  readNode,
  realComponents,
  withNode,
  type DirectoryNode,
  type Metadata,
  type Scratch,
  type TreeNode,
} from '@decant/rootfs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { gitIgnoreRules } from './git-ignore.ts';
import { addWorkspace, configWithWorkspace, withSafeDirectory, withTrust, workplaceOf } from './workspace.ts';

const META: Metadata = { mode: 0o755, uid: 0, gid: 0, mtimeSeconds: 7, mtimeNanoseconds: 0, xattrs: [] };
const directory = (entries: Record<string, TreeNode>): DirectoryNode => ({
  kind: 'directory',
  meta: META,
  entries: new Map(Object.entries(entries)),
});
const link = (target: string): TreeNode => ({ kind: 'symlink', meta: META, target });

let folder: string;
let scratch: Scratch;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-workspace-'));
  scratch = await createScratch(join(folder, 'scratch'));
});
afterEach(async () => {
  await scratch[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function file(text: string): Promise<TreeNode> {
  const blobOffset = scratch.sizeBytes;
  await scratch.append(Buffer.from(text));
  const extents = [{ fileOffset: 0, lengthBytes: text.length, blob: scratch, blobOffset }];
  return { kind: 'file', meta: META, sizeBytes: text.length, extents };
}

function show(root: DirectoryNode, path: string): string {
  const node = nodeAt(root, realComponents(root, path));
  return node?.kind === 'file' ? readNode(node, path, 1e6).toString() : (node?.kind ?? 'nothing');
}

describe('a tree', () => {
  it('is changed without changing the one before, through links inside the root', () => {
    const root = directory({ usr: directory({ home: directory({ a: link('/') }) }), home: link('../../usr/home') });
    expect(realComponents(root, '/home/a/./usr/../x/y')).toEqual(['x', 'y']);
    const node = link('t');
    const changed = withNode(root, realComponents(root, '/home/new/deep'), node, META);
    expect(nodeAt(changed, ['usr', 'home', 'new', 'deep'])).toBe(node);
    expect(nodeAt(root, ['usr', 'home', 'new'])).toBeUndefined();
    expect(() => withNode(root, ['usr', 'home', 'a', 'b'], node, META)).toThrow(/no directory/);
    const loop = directory({ a: link('b'), b: link('a') });
    expect(() => realComponents(loop, '/a/x')).toThrow(expect.objectContaining({ code: 'ROOTFS_UNSUPPORTED' }));
  });
});

describe('a workspace', () => {
  it('belongs to the user of the image, is trusted and equal for equal files', async () => {
    const root = directory({
      etc: directory({
        passwd: await file('root:x:0:0::/root:/bin/sh\nnode:x:1000:1001::/home/node:/bin/sh\n'),
        gitconfig: await file('[user]\n\tname = x'),
      }),
      home: directory({
        node: directory({ workspace: directory({ old: link('x') }), '.claude.json': await file('{"theme":"dark"}') }),
      }),
    });
    const from = join(folder, 'from');
    await mkdir(join(from, 'src'), { recursive: true });
    await writeFile(join(from, 'src/a'), 'content');
    await symlink('src/a', join(from, 'lnk'));
    const config = { config: { User: 'node', Cmd: ['x'], Labels: { a: 'b' } } };
    const workplace = workplaceOf(root, config);
    expect(workplace).toMatchObject({ path: '/home/node/workspace', user: { uid: 1000, gid: 1001 } });
    const made = await addWorkspace(root, workplace, await readDirectoryTree(from), scratch);
    expect(show(made, '/home/node/workspace/lnk')).toBe('content');
    expect(show(made, '/home/node/workspace/old')).toBe('nothing');
    const node = nodeAt(made, ['home', 'node', 'workspace', 'src', 'a'])!;
    expect(node.meta).toMatchObject({ uid: 1000, gid: 1001, mtimeSeconds: 0 });
    expect(show(made, '/etc/gitconfig')).toBe('[user]\n\tname = x\n[safe]\n\tdirectory = "/home/node/workspace"\n');
    expect(JSON.parse(show(made, '/home/node/.claude.json'))).toEqual({
      theme: 'dark',
      projects: { '/home/node/workspace': { hasTrustDialogAccepted: true } },
    });
    expect(nodeAt(made, ['etc', 'gitconfig'])!.meta).toMatchObject({ uid: 0 });
    expect(configWithWorkspace(config, workplace.path)).toEqual({
      config: {
        ...config.config,
        WorkingDir: '/home/node/workspace',
        Labels: { a: 'b', 'dev.decant.workspace': '/home/node/workspace' },
      },
    });
  });

  it('lies in / where the user has no home, and needs a user that is there', () => {
    expect(workplaceOf(directory({}), {})).toMatchObject({ path: '/workspace', user: { uid: 0 } });
    expect(() => workplaceOf(directory({}), { config: { User: 'nobody-here' } })).toThrow(
      expect.objectContaining({ code: 'JAIL_FAILED' }),
    );
  });

  it('is marked once, in what is there, and refuses what it cannot read', () => {
    const once = withSafeDirectory(undefined, '/a "b"');
    expect(once).toBe('[safe]\n\tdirectory = "/a \\"b\\""\n');
    expect(withSafeDirectory(once, '/a "b"')).toBe(once);
    const trust = withTrust('{"projects":{"/w":{"x":1},"/v":{}}}', '/w');
    expect(JSON.parse(trust)).toEqual({ projects: { '/w': { x: 1, hasTrustDialogAccepted: true }, '/v': {} } });
    for (const text of ['[]', 'null', '{']) {
      expect(() => withTrust(text, '/w')).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    }
  });
});

describe('.gitignore', () => {
  it('keeps .git, and counts only what lies in the directory', async () => {
    await mkdir(join(folder, 'w/.git/info'), { recursive: true });
    await writeFile(join(folder, '.gitignore'), '*\n');
    await writeFile(join(folder, 'w/.gitignore'), '.git\nsub/\n');
    await writeFile(join(folder, 'w/.git/info/exclude'), 'mine\n');
    await writeFile(join(folder, 'w/.git/config'), 'x');
    for (const name of ['a', 'mine', 'sub']) await writeFile(join(folder, 'w', name), name);
    const { entries } = await readDirectoryTree(join(folder, 'w'), { rules: gitIgnoreRules });
    const kept = entries.filter(({ type }) => type === 'file').map(({ path }) => path);
    // `sub/` is about directories, and this is a file.
    expect(kept).toEqual(['.git/config', '.git/info/exclude', '.gitignore', 'a', 'sub']);
    await expect(readDirectoryTree(join(folder, 'none'))).rejects.toMatchObject({ code: 'CONTEXT_UNREADABLE' });
    await expect(readDirectoryTree(join(folder, 'w/a'))).rejects.toMatchObject({ code: 'CONTEXT_UNREADABLE' });
  });
});
