import { describe, expect, it } from 'vitest';

import { Cooperation } from './cooperate.ts';
import { encodeIndexed, planIndexed, type IndexedDirectory } from './ext4-index.ts';
import { hashName } from './ext4-name-hash.ts';
import { numberInodes } from './ext4-script.ts';
import { takeInventory } from './inventory.ts';
import { directory, file } from './trees.fixture.ts';
import type { TreeNode } from './tree.ts';

const HASH = { seed: [0x12345678, 0x9abcdef0, 0x0fedcba9, 0x87654321], signed: true } as const;
const NODE = file('one of many');

async function plan(names: readonly string[]): Promise<IndexedDirectory> {
  const root = directory(names.map((name): [string, TreeNode] => [name, NODE]));
  const { inodes } = await takeInventory(root, new Cooperation(100_000, undefined));
  return planIndexed(inodes[0]!, numberInodes(inodes), HASH, []);
}

const majorOf = (name: string) => hashName(name, HASH).major;
const blocksOf = (indexed: IndexedDirectory) =>
  Array.from(encodeIndexed(indexed, 2, 2, 0), (block) => Buffer.from(block));

describe('the index of a large directory of ext4', () => {
  it('says that a block goes on with the hash that the one before ended with', async () => {
    // Two names with one hash, found by trying; a block has room for 255 names of this length.
    const pair = ['n0011255', 'n0070110'];
    const major = majorOf(pair[0]!);
    expect(majorOf(pair[1]!)).toBe(major);
    const others = Array.from({ length: 5000 }, (_, i) => `m${String(i).padStart(7, '0')}`);
    const lower = others.filter((name) => majorOf(name) < major);
    const upper = others.filter((name) => majorOf(name) > major).slice(0, 100);
    for (const [count, hash] of [
      [254, major + 1],
      [253, majorOf(upper.toSorted((a, b) => majorOf(a) - majorOf(b))[0]!)],
    ] as const) {
      const indexed = await plan([...lower.slice(0, count), ...pair, ...upper]);
      expect(indexed.leaves.map((leaf) => [leaf.hash, leaf.from, leaf.to])).toEqual([
        [expect.any(Number), 0, 255],
        [hash, 255, count + 102],
      ]);
      expect(blocksOf(indexed)[0]!.readUInt32LE(40)).toBe(hash);
    }
  });

  it('has nodes between its root and its blocks only where the root has no room', async () => {
    const names = (count: number) => Array.from({ length: count }, (_, i) => `${i}`.padEnd(255, 'n'));
    for (const [leaves, nodes] of [
      [507, []],
      [508, [508]],
      [511, [510, 1]],
    ] as const) {
      const indexed = await plan(names(leaves * 15));
      expect(indexed.leaves).toHaveLength(leaves);
      expect(indexed.blocks).toBe(1 + nodes.length + leaves);
      const blocks = blocksOf(indexed);
      expect(blocks).toHaveLength(indexed.blocks);
      const root = blocks[0]!;
      expect([root[30], root.readUInt16LE(32), root.readUInt16LE(34)]).toEqual([
        nodes.length > 0 ? 1 : 0,
        507,
        nodes.length > 0 ? nodes.length : leaves,
      ]);
      for (const [i, count] of nodes.entries()) {
        expect([blocks[1 + i]!.readUInt16LE(8), blocks[1 + i]!.readUInt16LE(10)]).toEqual([510, count]);
      }
    }
  });
});
