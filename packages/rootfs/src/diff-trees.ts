import { Cooperation } from './cooperate.ts';
import type { ImageDirectory, ImageFile, ImageNode } from './erofs-read.ts';
import type { ByteString } from './tree.ts';

/** What of an entry is not the same. `links`: which other names the same inode has. */
export type ChangedFact = 'type' | 'content' | 'target' | 'device' | 'mode' | 'owner' | 'time' | 'xattrs' | 'links';

/** One path at which two trees are not the same. */
export interface TreeChange {
  /** From `/`; bytes, one character each. */
  readonly path: ByteString;
  readonly change: 'added' | 'removed' | 'changed';
  readonly before: ImageNode | undefined;
  readonly after: ImageNode | undefined;
  /** Of a changed entry, never empty; empty for the others. */
  readonly facts: readonly ChangedFact[];
}

export interface DiffTreesOptions {
  /** Whether two files of equal size hold the same bytes; asked once for every pair of inodes. */
  readonly sameContent: (before: ImageFile, after: ImageFile) => Promise<boolean>;
  readonly signal?: AbortSignal | undefined;
}

interface Pair {
  readonly path: ByteString;
  readonly before: ImageNode | undefined;
  readonly after: ImageNode | undefined;
}

/** Compares two trees by path, depth-first in byte order of the names. What is below a removed directory is removed by itself. */
export async function* diffTrees(
  before: ImageDirectory,
  after: ImageDirectory,
  options: DiffTreesOptions,
): AsyncGenerator<TreeChange, void, undefined> {
  const cooperation = new Cooperation(2000, options.signal);
  const links = { before: await namesOfInodes(before, cooperation), after: await namesOfInodes(after, cooperation) };
  const compared = new Map<ImageFile, Map<ImageFile, boolean>>();
  const sameContent = async (one: ImageFile, other: ImageFile): Promise<boolean> => {
    const known = compared.get(one)?.get(other);
    if (known !== undefined) return known;
    const same = await options.sameContent(one, other);
    // Only inodes with several names are met again.
    if (links.before.has(one) || links.after.has(other)) {
      compared.set(one, (compared.get(one) ?? new Map<ImageFile, boolean>()).set(other, same));
    }
    return same;
  };
  const stack: Pair[] = [{ path: '', before, after }];
  for (let pair = stack.pop(); pair !== undefined; pair = stack.pop()) {
    await cooperation.step();
    const path = pair.path === '' ? '/' : pair.path;
    if (pair.before === undefined || pair.after === undefined) {
      yield { ...pair, path, change: pair.before === undefined ? 'added' : 'removed', facts: [] };
    } else {
      const facts = await changedFacts(pair.before, pair.after, sameContent);
      const linked = links.before.get(pair.before) !== links.after.get(pair.after);
      if (linked && !facts.includes('type')) facts.push('links');
      if (facts.length > 0) yield { ...pair, path, change: 'changed', facts };
    }
    for (const child of childrenOf(pair)) stack.push(child);
  }
}

/** What is below either side, last name first. */
function childrenOf({ path, before, after }: Pair): Pair[] {
  const old = before?.kind === 'directory' ? before.entries : undefined;
  const fresh = after?.kind === 'directory' ? after.entries : undefined;
  if (old === undefined && fresh === undefined) return [];
  const names = new Set([...(old?.keys() ?? []), ...(fresh?.keys() ?? [])]);
  return [...names]
    .sort((a, b) => (a < b ? 1 : -1))
    .map((name) => ({ path: `${path}/${name}`, before: old?.get(name), after: fresh?.get(name) }));
}

async function changedFacts(
  before: ImageNode,
  after: ImageNode,
  sameContent: DiffTreesOptions['sameContent'],
): Promise<ChangedFact[]> {
  const facts: ChangedFact[] = [];
  if (before.kind !== after.kind) facts.push('type');
  else if (before.kind === 'file' && after.kind === 'file') {
    if (before.sizeBytes !== after.sizeBytes || !(await sameContent(before, after))) facts.push('content');
  } else if (before.kind === 'symlink' && after.kind === 'symlink') {
    if (before.target !== after.target) facts.push('target');
  } else if ('major' in before && 'major' in after) {
    if (before.major !== after.major || before.minor !== after.minor) facts.push('device');
  }
  const [one, other] = [before.meta, after.meta];
  if (one.mode !== other.mode) facts.push('mode');
  if (one.uid !== other.uid || one.gid !== other.gid) facts.push('owner');
  if (one.mtimeSeconds !== other.mtimeSeconds || one.mtimeNanoseconds !== other.mtimeNanoseconds) facts.push('time');
  const sameXattrs =
    one.xattrs.length === other.xattrs.length &&
    one.xattrs.every(({ name, value }, i) => {
      const twin = other.xattrs[i]!;
      return name === twin.name && Buffer.compare(value, twin.value) === 0;
    });
  if (!sameXattrs) facts.push('xattrs');
  return facts;
}

/** All names of each inode that has several, as one string. */
async function namesOfInodes(root: ImageDirectory, cooperation: Cooperation): Promise<Map<ImageNode, string>> {
  const first = new Map<ImageNode, ByteString>();
  const names = new Map<ImageNode, string>();
  const stack: { path: ByteString; directory: ImageDirectory }[] = [{ path: '', directory: root }];
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    await cooperation.step();
    for (const [name, node] of [...next.directory.entries].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const path = `${next.path}/${name}`;
      if (node.kind === 'directory') {
        stack.push({ path, directory: node });
        continue;
      }
      const known = names.get(node) ?? first.get(node);
      if (known === undefined) first.set(node, path);
      else names.set(node, `${known}\0${path}`);
    }
  }
  return names;
}
