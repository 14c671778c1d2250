import { DecantError, quote } from '@decant/core';
import { byteStringOf, showPath } from './byte-string.ts';
import { MAX_LINK_HOPS } from './flatten-tree.ts';
import type { ByteString, DirectoryNode, FileNode, Metadata, TreeNode } from './tree.ts';

/**
 * The components of an absolute path with all symlinks in it followed inside the root; what is not there stays as it
 * is. @throws ROOTFS_UNSUPPORTED for a loop.
 */
export function realComponents(root: DirectoryNode, path: string): ByteString[] {
  // What is still to be walked, the next component last.
  const ahead = byteStringOf(Buffer.from(path)).split('/').toReversed();
  const real: ByteString[] = [];
  let hops = 0;
  while (ahead.length > 0) {
    const name = ahead.pop()!;
    if (name === '' || name === '.') continue;
    if (name === '..') {
      real.pop();
      continue;
    }
    const node = nodeAt(root, [...real, name]);
    if (node?.kind !== 'symlink') {
      real.push(name);
      continue;
    }
    if (++hops > MAX_LINK_HOPS) {
      throw new DecantError('ROOTFS_UNSUPPORTED', `The links at ${quote(path)} in the image form a loop.`);
    }
    if (node.target.startsWith('/')) real.length = 0;
    ahead.push(...node.target.split('/').toReversed());
  }
  return real;
}

/** What stands at a path without links. */
export function nodeAt(root: DirectoryNode, components: readonly ByteString[]): TreeNode | undefined {
  let node: TreeNode | undefined = root;
  for (const name of components) node = node?.kind === 'directory' ? node.entries.get(name) : undefined;
  return node;
}

/**
 * The tree with `node` at a path, in place of whatever stands there; directories that are missing on the way get
 * `meta`. Nothing of the given tree is changed. @throws ROOTFS_UNSUPPORTED when a file stands in the way.
 */
export function withNode(
  root: DirectoryNode,
  [name, ...rest]: readonly ByteString[],
  node: TreeNode,
  meta: Metadata,
): DirectoryNode {
  if (name === undefined) throw new DecantError('INTERNAL', 'The root of a tree is not replaced.');
  const entries = new Map(root.entries);
  if (rest.length === 0) {
    entries.set(name, node);
    return { ...root, entries };
  }
  const child = root.entries.get(name) ?? { kind: 'directory', meta, entries: new Map<ByteString, TreeNode>() };
  if (child.kind !== 'directory') {
    throw new DecantError('ROOTFS_UNSUPPORTED', `In the image, ${showPath(name)} is no directory.`);
  }
  entries.set(name, withNode(child, rest, node, meta));
  return { ...root, entries };
}

/** The bytes of a file of at most `largest` bytes. @throws LIMIT_EXCEEDED */
export function readNode(file: FileNode, what: string, largest: number): Buffer {
  if (file.sizeBytes > largest) {
    throw new DecantError('LIMIT_EXCEEDED', `${what} in the image has more than ${largest} bytes.`);
  }
  const bytes = Buffer.alloc(file.sizeBytes);
  for (const { fileOffset, lengthBytes, blob, blobOffset } of file.extents) {
    blob.readSync(bytes.subarray(fileOffset, fileOffset + lengthBytes), blobOffset);
  }
  return bytes;
}
