import { DecantError } from '@decant/core';

import { showPath } from './byte-string.ts';
import type { Cooperation } from './cooperate.ts';
import { NAME_MAX, SYMLINK_MAX } from './erofs-format.ts';
import { sortedEntries, type ByteString, type DirectoryNode, type FileNode, type TreeNode } from './tree.ts';

/** One inode of the tree: a node, however many names it has. */
export interface Inode {
  readonly node: TreeNode;
  /** Position in {@link Inventory.inodes}. */
  readonly index: number;
  /** The directory and name by which it was found first; the root is its own parent and has no name. */
  readonly parent: Inode | undefined;
  readonly name: ByteString;
  /** For a directory: its names in byte order. */
  readonly children: readonly Child[];
  /** For a directory 2 + subdirectories, otherwise the number of names. */
  links: number;
}

export interface Child {
  readonly name: ByteString;
  readonly inode: Inode;
}

export interface Inventory {
  /** Breadth-first, siblings adjacent and in byte order, the root first. */
  readonly inodes: readonly Inode[];
  /** Regular files, each once, in the order of a depth-first walk over sorted names. */
  readonly files: readonly (Inode & { readonly node: FileNode })[];
}

const NONE: readonly Child[] = [];

/**
 * Lists the inodes of a tree and refuses what neither filesystem can hold.
 * @throws ROOTFS_UNSUPPORTED naming the path
 */
export async function takeInventory(root: DirectoryNode, cooperation: Cooperation): Promise<Inventory> {
  const inodes: Inode[] = [];
  const known = new Map<TreeNode, Inode>();
  const add = (node: TreeNode, parent: Inode | undefined, name: ByteString): Inode => {
    const links = node.kind === 'directory' ? 2 : 1;
    const children = node.kind === 'directory' ? [] : NONE;
    const inode: Inode = { node, index: inodes.length, parent, name, children, links };
    checkNode(inode);
    inodes.push(inode);
    known.set(node, inode);
    return inode;
  };
  add(root, undefined, '');
  for (let next = 0; next < inodes.length; next++) {
    const directory = inodes[next]!;
    await cooperation.step();
    if (directory.node.kind !== 'directory') continue;
    const children = directory.children as Child[];
    for (const [name, node] of sortedEntries(directory.node)) {
      checkName(name, directory);
      const before = known.get(node);
      if (before === undefined) {
        children.push({ name, inode: add(node, directory, name) });
        if (node.kind === 'directory') directory.links++;
      } else if (node.kind === 'directory') {
        throw unsupported(`${pathOf(directory)}/${name}`, 'is a directory with a second name');
      } else {
        before.links++;
        children.push({ name, inode: before });
      }
    }
  }
  return { inodes, files: await filesInPathOrder(inodes[0]!, cooperation) };
}

/**
 * Every inode once: the root, then what it names, siblings adjacent and in byte order, then in the same way what each of its
 * directories names, one after the other, each with all that is below it. So a subtree lies together, and a package that
 * changes moves the inodes of few others. An inode with several names is where {@link Inode.parent} has it.
 */
export function* inSubtreeOrder(root: Inode): Generator<Inode, void, undefined> {
  yield root;
  const stack: Inode[] = [root];
  for (let directory = stack.pop(); directory !== undefined; directory = stack.pop()) {
    const own = directory.children.filter(
      (child) => child.inode.parent === directory && child.inode.name === child.name,
    );
    for (const { inode } of own) yield inode;
    for (const { inode } of own.toReversed()) if (inode.node.kind === 'directory') stack.push(inode);
  }
}

async function filesInPathOrder(root: Inode, cooperation: Cooperation): Promise<Inventory['files']> {
  const files: (Inode & { readonly node: FileNode })[] = [];
  const seen = new Set<Inode>();
  const stack: Inode[] = [root];
  for (let inode = stack.pop(); inode !== undefined; inode = stack.pop()) {
    await cooperation.step();
    if (isFile(inode) && !seen.has(inode)) {
      files.push(inode);
      if (inode.links > 1) seen.add(inode);
    }
    for (let i = inode.children.length - 1; i >= 0; i--) stack.push(inode.children[i]!.inode);
  }
  return files;
}

function isFile(inode: Inode): inode is Inode & { readonly node: FileNode } {
  return inode.node.kind === 'file';
}

/** The path of an inode's first name, from `/`; empty for the root. */
export function pathOf(inode: Inode): ByteString {
  const names: ByteString[] = [];
  for (let at: Inode | undefined = inode; at?.parent !== undefined; at = at.parent) names.push(at.name);
  return names.map((_, i) => `/${names[names.length - 1 - i]}`).join('');
}

export function unsupported(path: ByteString, what: string, details: Record<string, unknown> = {}): DecantError {
  return new DecantError('ROOTFS_UNSUPPORTED', `${showPath(path)} ${what}.`, { details: { path, ...details } });
}

function checkName(name: ByteString, directory: Inode): void {
  // eslint-disable-next-line no-control-regex -- byte strings: every character is one byte
  const wellFormed = /^[\x01-\x2e\x30-\xff]+$/.test(name);
  if (!wellFormed || name === '.' || name === '..') {
    throw unsupported(`${pathOf(directory)}/${name}`, 'has a name that no filesystem allows');
  }
  if (name.length > NAME_MAX) {
    throw unsupported(
      `${pathOf(directory)}/${name}`,
      `has a name of ${name.length} bytes, and ${NAME_MAX} is the most`,
    );
  }
}

const isId = (value: number) => Number.isInteger(value) && value >= 0 && value <= 0xffff_fffe;

function checkNode(inode: Inode): void {
  const { node } = inode;
  const { meta } = node;
  const refuse = (what: string) => unsupported(pathOf(inode), what);
  if (!Number.isInteger(meta.mode) || meta.mode < 0 || meta.mode > 0o7777) throw refuse('has bits of no permission');
  if (!isId(meta.uid) || !isId(meta.gid)) throw refuse('has an owner outside 0 to 2^32 - 2');
  const { mtimeNanoseconds } = meta;
  const wholeTime = Number.isSafeInteger(meta.mtimeSeconds) && Number.isInteger(mtimeNanoseconds);
  if (!wholeTime || mtimeNanoseconds < 0 || mtimeNanoseconds > 999_999_999) throw refuse('has no usable time');
  if (new Set(meta.xattrs.map(({ name }) => name)).size !== meta.xattrs.length) {
    throw refuse('has an extended attribute twice');
  }
  if (node.kind === 'symlink') {
    if (node.target === '' || node.target.includes('\0')) throw refuse('is a link to an impossible name');
    if (node.target.length > SYMLINK_MAX) throw refuse(`is a link to a name longer than ${SYMLINK_MAX} bytes`);
  } else if (node.kind === 'character-device' || node.kind === 'block-device') {
    const { major, minor } = node;
    const fits = Number.isInteger(major) && Number.isInteger(minor);
    if (!fits || major < 0 || minor < 0 || major > 0xfff || minor > 0xfffff) {
      throw refuse('is a device with a number over 4095:1048575');
    }
  } else if (node.kind === 'file') {
    checkFile(node, refuse);
  }
}

function checkFile(node: FileNode, refuse: (what: string) => DecantError): void {
  if (!Number.isSafeInteger(node.sizeBytes) || node.sizeBytes < 0) throw refuse('has no usable size');
  let end = 0;
  for (const extent of node.extents) {
    const { fileOffset, lengthBytes } = extent;
    if (!Number.isSafeInteger(fileOffset) || !(lengthBytes > 0) || fileOffset < end) {
      throw refuse('has data runs that are out of order');
    }
    end = fileOffset + lengthBytes;
  }
  if (!(end <= node.sizeBytes)) throw refuse('has data beyond its size');
}
