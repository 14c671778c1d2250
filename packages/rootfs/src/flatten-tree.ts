import { entryError, entryLimitError, type Place } from './flatten-path.ts';
import type { FlattenLimits } from './flatten-limits.ts';
import type { ByteString, DeviceNode, FileNode, Metadata, SpecialNode, SymlinkNode } from './tree.ts';

/** As in Linux: a path that passes more links than this is taken for a loop. */
export const MAX_LINK_HOPS = 40;

/** A directory while the tree is being made. */
export interface GrowingDirectory {
  readonly kind: 'directory';
  meta: Metadata;
  readonly entries: Map<ByteString, GrowingNode>;
}

export type GrowingNode = GrowingDirectory | FileNode | SymlinkNode | DeviceNode | SpecialNode;

/** What a directory gets that no entry describes: 0755 root:root, 1970. */
const IMPLICIT: Metadata = { mode: 0o755, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanoseconds: 0, xattrs: [] };

export function newDirectory(meta: Metadata = IMPLICIT): GrowingDirectory {
  return { kind: 'directory', meta, entries: new Map() };
}

interface WalkOptions {
  readonly place: Place;
  readonly limits: FlattenLimits;
  /** Given, missing directories are made, and this is called for each. */
  readonly onCreate?: (() => void) | undefined;
  /** Called with a symlink that stands at a path of the archive itself (not of a link's target); false ends the walk. */
  readonly follow?: ((depth: number) => boolean) | undefined;
}

/**
 * Walks from the root along components, through symlinks, which are resolved inside the root: an absolute target
 * begins at the root and `..` stops there. Returns undefined when the way is missing and nothing is to be made.
 * @throws LAYER_INVALID when something that is no directory stands in the way or links form a loop.
 */
export function walk(
  root: GrowingDirectory,
  components: readonly ByteString[],
  options: WalkOptions,
): GrowingDirectory | undefined {
  const { place, limits, onCreate } = options;
  const stack: GrowingDirectory[] = [root];
  // What is still to be walked, the next component last.
  const ahead = components.toReversed();
  let fromLinks = 0;
  let hops = 0;
  while (ahead.length > 0) {
    const name = ahead.pop()!;
    const ownDepth = fromLinks > 0 ? undefined : components.length - ahead.length;
    if (fromLinks > 0) fromLinks--;
    if (name === '' || name === '.') continue;
    if (name === '..') {
      if (stack.length > 1) stack.pop();
      continue;
    }
    const directory = stack.at(-1)!;
    const node = directory.entries.get(name);
    if (node === undefined) {
      if (onCreate === undefined) return undefined;
      onCreate();
      if (name.length > 255) throw entryError(place, 'passes a link with a name that is too long');
      const made = newDirectory();
      directory.entries.set(name, made);
      stack.push(made);
    } else if (node.kind === 'directory') {
      stack.push(node);
    } else if (node.kind === 'symlink') {
      if (ownDepth !== undefined && options.follow?.(ownDepth) === false) return undefined;
      if (++hops > MAX_LINK_HOPS) throw entryError(place, 'passes too many symlinks, or a loop of them');
      const parts = node.target.split('/');
      if (node.target.startsWith('/')) stack.length = 1;
      for (const part of parts.toReversed()) ahead.push(part);
      fromLinks += parts.length;
    } else {
      if (onCreate === undefined) return undefined;
      throw entryError(place, 'lies below something that is not a directory');
    }
    if (stack.length - 1 > limits.depth) {
      throw entryLimitError(place, `resolves to more than ${limits.depth} levels`, limits, 'depth');
    }
  }
  return stack.at(-1)!;
}
