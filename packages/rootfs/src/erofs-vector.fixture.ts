import { directory, file, meta } from './trees.fixture.ts';
import type { DirectoryNode, TreeNode } from './tree.ts';

/**
 * What a path from the root names in `vectors/erofs.json`: a file with a text repeated up to a size; a link; another name of
 * the file at a path before it; or a directory of so many empty files with the names 0, 1, 2 and so on.
 */
export type VectorEntry =
  | { readonly text: string; readonly sizeBytes: number; readonly xattr?: readonly [name: string, value: string] }
  | { readonly link: string }
  | { readonly same: string }
  | { readonly emptyFiles: number };

/** All times are 1,700,000,000 seconds, all owners 0; modes are 0755 of directories, 0777 of links, and 0644. */
export function vectorTree(entries: Readonly<Record<string, VectorEntry>>): DirectoryNode {
  const known = new Map<string, TreeNode>();
  const root = new Map<string, TreeNode>();
  for (const [path, entry] of Object.entries(entries)) {
    const names = path.split('/');
    const name = names.pop()!;
    let at = root;
    for (const one of names) {
      if (!at.has(one)) at.set(one, directory());
      const next = at.get(one)!;
      if (next.kind !== 'directory') throw new Error(`${one} is no directory`);
      at = next.entries as Map<string, TreeNode>;
    }
    const node = 'same' in entry ? known.get(entry.same)! : nodeOf(entry);
    known.set(path, node);
    at.set(name, node);
  }
  return directory(root);
}

function nodeOf(entry: Exclude<VectorEntry, { same: string }>): TreeNode {
  if ('link' in entry) return { kind: 'symlink', meta: meta({ mode: 0o777 }), target: entry.link };
  if ('emptyFiles' in entry) {
    return directory(Array.from({ length: entry.emptyFiles }, (_, i): [string, TreeNode] => [String(i), file('')]));
  }
  const { text, sizeBytes, xattr } = entry;
  const xattrs = xattr === undefined ? [] : [{ name: xattr[0], value: Buffer.from(xattr[1]) }];
  return file(Buffer.alloc(sizeBytes, text), { xattrs });
}
