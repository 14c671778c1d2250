import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { diffTrees } from './diff-trees.ts';
import { planErofs } from './erofs-plan.ts';
import { readErofs } from './erofs-read.ts';
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
import type { DirectoryNode, TreeNode } from './tree.ts';

async function imageOf(root: DirectoryNode) {
  return readErofs(memoryAccess((await collect((await planErofs(root, { hash: testHash })).pieces())).bytes));
}

/** Paths with what changed; and how many pairs of files were compared. */
async function diff(one: DirectoryNode, other: DirectoryNode) {
  const [before, after] = [await imageOf(one), await imageOf(other)];
  const found: Record<string, string> = {};
  let compared = 0;
  const sameContent = async (a: Parameters<typeof before.readFile>[0], b: typeof a) => {
    compared++;
    const parts = [await before.readFile(a, 0, a.sizeBytes), await after.readFile(b, 0, b.sizeBytes)] as const;
    return Buffer.compare(...parts) === 0;
  };
  for await (const { path, change, facts } of diffTrees(before.root, after.root, { sameContent })) {
    expect(found).not.toHaveProperty([path]);
    found[path] = change === 'changed' ? facts.join(' ') : change;
  }
  return { found, compared, before, after };
}

describe('diffTrees', () => {
  it('tells added, removed and changed entries apart, and what of them changed', async () => {
    const linked = file('linked');
    const base: Record<string, TreeNode> = {
      same: file('same'),
      gone: directory({ a: file('a'), b: directory({ c: file('c') }) }),
      content: file('one'),
      size: file('one'),
      mode: file('m'),
      owner: file('o'),
      time: file('t'),
      nanoseconds: file('t'),
      xattrs: file('x', { xattrs: [{ name: 'user.a', value: Buffer.from('1') }] }),
      type: file('was a file'),
      'other type': directory({ below: file('b') }),
      target: { kind: 'symlink', meta: meta(), target: 'a' },
      device: { kind: 'block-device', meta: meta(), major: 1, minor: 2 },
      one: linked,
      two: linked,
    };
    const changed: Record<string, TreeNode> = {
      ...base,
      new: directory({ n: file('n') }),
      content: file('two'),
      size: file('longer'),
      mode: file('m', { mode: 0o600 }),
      owner: file('o', { gid: 5 }),
      time: file('t', { mtimeSeconds: 1 }),
      nanoseconds: file('t', { mtimeNanoseconds: 1 }),
      xattrs: file('x', { xattrs: [{ name: 'user.a', value: Buffer.from('2') }] }),
      type: directory({ below: file('new') }),
      'other type': { kind: 'fifo', meta: meta({ mode: 0o755 }) },
      target: { kind: 'symlink', meta: meta(), target: 'b' },
      device: { kind: 'block-device', meta: meta(), major: 1, minor: 3 },
      two: file('linked'),
    };
    delete changed['gone'];
    const { found } = await diff(directory(base), directory(changed, { uid: 3 }));
    expect(found).toEqual({
      '/': 'owner',
      '/content': 'content',
      '/device': 'device',
      '/gone': 'removed',
      '/gone/a': 'removed',
      '/gone/b': 'removed',
      '/gone/b/c': 'removed',
      '/mode': 'mode',
      '/nanoseconds': 'time',
      '/new': 'added',
      '/new/n': 'added',
      '/one': 'links',
      '/other type': 'type',
      '/other type/below': 'removed',
      '/owner': 'owner',
      '/size': 'content',
      '/target': 'target',
      '/time': 'time',
      '/two': 'links',
      '/type': 'type mode',
      '/type/below': 'added',
      '/xattrs': 'xattrs',
    });
    expect(Object.keys(found)).toEqual(Object.keys(found).toSorted());
  });

  it('compares an inode with many names once', async () => {
    const many = (content: Uint8Array) => {
      const node = file(content);
      return directory(Array.from({ length: 50 }, (_, i): [string, TreeNode] => [`n${i}`, node]));
    };
    const { found, compared } = await diff(many(noise(1, 100)), many(noise(2, 100)));
    expect(Object.keys(found)).toHaveLength(50);
    expect(compared).toBe(1);
  });

  it('finds nothing between equal trees, and explains any difference between others', async () => {
    await fc.assert(
      fc.asyncProperty(anyTree, anyTree, async (one, other) => {
        expect((await diff(one, one)).found).toEqual({});
        const { found, before, after } = await diff(one, other);
        const lines = async (image: typeof before) => {
          const byPath = new Map<string, string>();
          for (const line of await describeImage(image)) {
            // Which name of an inode is its first is not told here.
            const [, path = '', rest = ''] = /^("(?:[^"\\]|\\.)*") (.*)$/s.exec(line)!;
            byPath.set((JSON.parse(path) as string) || '/', rest.replace(/ same as .*$/s, ''));
          }
          return byPath;
        };
        const [old, fresh] = [await lines(before), await lines(after)];
        for (const path of new Set([...old.keys(), ...fresh.keys()])) {
          const change = found[path];
          if (!fresh.has(path)) expect(change).toBe('removed');
          else if (!old.has(path)) expect(change).toBe('added');
          else if (change === undefined) expect(fresh.get(path)).toBe(old.get(path));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('stops when told to', async () => {
    const image = await imageOf(
      directory(Array.from({ length: 3000 }, (_, i): [string, TreeNode] => [`${i}`, file('')])),
    );
    const signal = AbortSignal.abort(new Error('enough'));
    const changes = diffTrees(image.root, image.root, { sameContent: () => Promise.resolve(true), signal });
    await expect(changes.next()).rejects.toThrow('enough');
  });
});
