import { describe, expect, it } from 'vitest';

import { Cooperation } from './cooperate.ts';
import { findOwners } from './file-owners.ts';
import { directory, file, meta } from './trees.fixture.ts';
import type { DirectoryNode, FileNode, TreeNode } from './tree.ts';

const withLists = (lists: Readonly<Record<string, TreeNode>>, rest: Readonly<Record<string, TreeNode>>) =>
  directory({ ...rest, var: directory({ lib: directory({ dpkg: directory({ info: directory(lists) }) }) }) });
const link = (target: string): TreeNode => ({ kind: 'symlink', meta: meta(), target });
const ownersOf = (root: DirectoryNode) => findOwners(root, new Cooperation(100, undefined));

describe('findOwners', () => {
  it('reads who owns a file from the lists, through the links of a merged /usr', async () => {
    const [sh, libc, other] = [file('sh'), file('libc'), file('other')];
    const list = file('/.\n/bin\n/bin/sh\n');
    const script = file('exit 0');
    const root = withLists(
      {
        'dash.list': list,
        'dash.postinst': script,
        'libc6:amd64.list': file('/usr/lib/libc.so.6\n'),
        format: file('1\n'),
      },
      {
        bin: link('usr/bin'),
        usr: directory({ bin: directory({ sh }), lib: directory({ 'libc.so.6': libc, other }) }),
      },
    );
    const owners = await ownersOf(root);
    expect([sh, list, script, libc, other].map((node) => owners.get(node))).toEqual([
      'dash',
      'dash',
      'dash',
      'libc6',
      undefined,
    ]);
  });

  it('gives a file to the first package that names it, and keeps dots in names', async () => {
    const shared = file('shared');
    const root = withLists({ 'b2.0.list': file('/shared\n'), 'a3.11.list': file('/shared\n') }, { shared });
    expect((await ownersOf(root)).get(shared)).toBe('a3.11');
  });

  it('knows no owner without a database, or when it is something else', async () => {
    expect(await ownersOf(directory({ a: file('a') }))).toEqual(new Map());
    expect(await ownersOf(directory({ var: file('a') }))).toEqual(new Map());
    expect(await ownersOf(directory({ var: link('/var') }))).toEqual(new Map());
  });

  it('bears nonsense in lists', async () => {
    const a = file('a');
    const lines = ['', '/', '//', 'a', '../a', '/../a', '/a/b/c', '/loop/a', `/${'x'.repeat(5000)}`, '\0\xff'].join(
      '\n',
    );
    const root = withLists(
      { '.list': file(lines), 'x.list': directory(), 'y.list': link('x') },
      { a, loop: link('/loop') },
    );
    expect((await ownersOf(root)).has(a)).toBe(false);
  });

  it('passes over lists that are too long, before it takes memory for them', async () => {
    const huge: FileNode = { kind: 'file', meta: meta(), sizeBytes: 2 ** 40, extents: [] };
    const a = file('a');
    const owners = await ownersOf(withLists({ 'huge.list': huge, 'small.list': file('/a\n') }, { a }));
    expect(owners.get(a)).toBe('small');
  });
});
