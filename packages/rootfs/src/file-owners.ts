import { MIB } from '@decant/core';

import type { Cooperation } from './cooperate.ts';
import { FileCursor } from './file-bytes.ts';
import { sortedEntries, type ByteString, type DirectoryNode, type FileNode, type TreeNode } from './tree.ts';

/** Most bytes of lists that are read: dpkg's take about 2 MiB in an image of 1 GB. Files of longer ones have no owner. */
const MOST_LIST_BYTES = 64 * MIB;
const DATABASE = ['var', 'lib', 'dpkg', 'info'];

/**
 * Which Debian package each regular file belongs to, as far as dpkg's database in the tree says: files that a list names,
 * and the database's own files of the package. Empty for trees without that database. Nothing but the order of files in the
 * image follows from it, so a wrong list costs sharing and nothing else.
 */
export async function findOwners(
  root: DirectoryNode,
  cooperation: Cooperation,
): Promise<ReadonlyMap<FileNode, ByteString>> {
  const owners = new Map<FileNode, ByteString>();
  const database = lookUp(root, DATABASE);
  if (database?.kind !== 'directory') return owners;
  let left = MOST_LIST_BYTES;
  for (const [name, node] of sortedEntries(database)) {
    if (node.kind !== 'file') continue;
    // PACKAGE.list or PACKAGE:ARCHITECTURE.list; the name of a package has no colon, but it may have dots.
    const owner = name.replace(name.includes(':') ? /:.*$/s : /\.[^.]*$/s, '');
    if (!owners.has(node)) owners.set(node, owner);
    if (!name.endsWith('.list') || node.sizeBytes > left) continue;
    left -= node.sizeBytes;
    for (const path of readText(node).split('\n')) {
      await cooperation.step();
      const file = path.startsWith('/') ? lookUp(root, path.slice(1).split('/')) : undefined;
      if (file?.kind === 'file' && !owners.has(file)) owners.set(file, owner);
    }
  }
  return owners;
}

/** What a path leads to. Its first name may be a link in the root (`/bin` to `usr/bin`); others are not followed. */
function lookUp(root: DirectoryNode, path: readonly ByteString[]): TreeNode | undefined {
  const [first = '', ...rest] = path;
  const top = root.entries.get(first);
  if (top?.kind !== 'symlink') return below(top, rest);
  const names = top.target.split('/').filter((name) => name !== '');
  return below(root, [...names, ...rest]);
}

function below(from: TreeNode | undefined, names: readonly ByteString[]): TreeNode | undefined {
  let node = from;
  for (const name of names) node = node?.kind === 'directory' ? node.entries.get(name) : undefined;
  return node;
}

function readText(node: FileNode): ByteString {
  const bytes = Buffer.alloc(node.sizeBytes);
  new FileCursor(node).read(bytes, 0);
  return bytes.toString('latin1');
}
