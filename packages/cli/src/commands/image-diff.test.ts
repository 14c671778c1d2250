import type { DiffEntry, ImageChange, ImageDiff } from '@decant/sdk';
import { expect, test } from 'vitest';

import { diffLines } from './image-diff.ts';

const plain = (text: string) => text;
const STYLE = { bold: plain, dim: plain, red: plain, green: plain, yellow: plain };

const entry = (change: Partial<DiffEntry> = {}): DiffEntry => ({
  kind: 'file',
  sizeBytes: 1024,
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeSeconds: 1,
  mtimeNanoseconds: 0,
  ...change,
});
const SAME: ImageDiff = {
  before: { ref: 'a', id: 'cas-v1:1' },
  after: { ref: 'b', id: 'cas-v1:2' },
  identical: false,
  changes: [],
  counts: { added: 0, removed: 0, changed: 0 },
  config: [],
  cost: {
    chunks: { total: 10, new: 0, shared: 10 },
    bytes: { total: 10_240, new: 0, totalStored: 5120, newStored: 0 },
  },
  readBytes: 0,
};

test('a line for every change, then counts and cost', () => {
  const changes: ImageChange[] = [
    { path: '/new', change: 'added', facts: [], before: null, after: entry() },
    { path: '/dir', change: 'removed', facts: [], before: entry({ kind: 'directory', sizeBytes: 0 }), after: null },
    {
      path: '/x\u001B[2J\ny',
      change: 'changed',
      facts: ['content', 'mode', 'owner', 'time'],
      before: entry(),
      after: entry({ sizeBytes: 2048, mode: 0o4755, uid: 7 }),
    },
    { path: '/t', change: 'changed', facts: ['type'], before: entry(), after: entry({ kind: 'symlink' }) },
  ];
  const diff: ImageDiff = {
    ...SAME,
    changes,
    counts: { added: 1, removed: 1, changed: 2 },
    config: ['Cmd', 'Env'],
    cost: {
      chunks: { total: 10, new: 2, shared: 8 },
      bytes: { total: 10_240, new: 2048, totalStored: 5120, newStored: 1024 },
    },
  };
  expect(diffLines(diff, STYLE)).toEqual([
    '+ /new  1.0 KiB',
    '- /dir  directory',
    '~ /x�y  content 1.0 KiB → 2.0 KiB, mode 644 → 4755, owner 0:0 → 7:0, time',
    '~ /t  file → symlink',
    '~ configuration: Cmd, Env',
    '1 added, 1 removed, 2 changed',
    'b has 2 of 10 chunks that a has not: 2.0 KiB, stored 1.0 KiB of 5.0 KiB',
  ]);
});

test('nothing to tell', () => {
  expect(diffLines(SAME, STYLE)).toEqual(['the two are the same', 'b has no chunk that a has not']);
  expect(diffLines({ ...SAME, config: ['User'] }, STYLE)).toEqual([
    '~ configuration: User',
    'the files are the same',
    'b has no chunk that a has not',
  ]);
});
