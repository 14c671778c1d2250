import { inPieces, makeTar, type TarSpec } from '@decant/oci/testing';

import { flattenImage, type FlattenedTree, type FlattenOptions } from './flatten.ts';
import { sortedEntries, type DirectoryNode, type FileNode, type TreeNode } from './tree.ts';

/** What tests of the flattener share; not part of the package. */
export type Layers = readonly (readonly TarSpec[])[];

/** Flattens layers that are made of specs. */
export function flattenSpecs(specs: Layers, options: FlattenOptions): Promise<FlattenedTree> {
  const layers = specs.map((spec, i) => {
    const tar = makeTar(spec);
    const open = () => inPieces(tar);
    return { digest: `sha256:${i}`, diffId: '', mediaType: '', sizeBytes: tar.length, open, read: open };
  });
  return flattenImage({ layers }, options);
}

export function read(file: FileNode): string {
  const bytes = Buffer.alloc(file.sizeBytes);
  for (const { fileOffset, lengthBytes, blob, blobOffset } of file.extents) {
    const part = bytes.subarray(fileOffset, fileOffset + lengthBytes);
    if (blob.readSync(part, blobOffset) !== lengthBytes) throw new Error('an extent lies outside its blob');
  }
  return bytes.toString('latin1');
}

function describeNode(node: TreeNode): string {
  if (node.kind === 'file') return read(node);
  if (node.kind === 'symlink') return `-> ${node.target}`;
  if ('major' in node) return `${node.kind} ${node.major}/${node.minor}`;
  return node.kind;
}

/** Paths and what stands there; directories only when they are empty. */
export function list(root: DirectoryNode): Record<string, string> {
  const found: Record<string, string> = {};
  const visit = (node: DirectoryNode, path: string) => {
    for (const [name, child] of sortedEntries(node)) {
      const at = `${path}/${name}`;
      if (child.kind !== 'directory') found[at] = describeNode(child);
      else if (child.entries.size === 0) found[at] = 'dir';
      else visit(child, at);
    }
  };
  visit(root, '');
  return found;
}

export function at(root: DirectoryNode, path: string): TreeNode {
  let node: TreeNode = root;
  for (const name of path.split('/')) node = (node as DirectoryNode).entries.get(name)!;
  return node;
}

export const f = (path: string, data = path): TarSpec => ({ path, data });
export const l = (path: string, link: string): TarSpec => ({ path, type: '2', link });
export const h = (path: string, link: string, more: Partial<TarSpec> = {}): TarSpec => ({
  path,
  type: '1',
  link,
  ...more,
});
export const d = (path: string): TarSpec => ({ path: `${path}/` });
