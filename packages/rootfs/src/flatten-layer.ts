import { setImmediate } from 'node:timers/promises';

import type { TarEntry } from '@decant/oci';

import type { FlattenLimits } from './flatten-limits.ts';
import { splitMarks, type Mark, type Whiteouts } from './flatten-marks.ts';
import { componentsOf, entryError, entryLimitError, MAX_PATH_BYTES } from './flatten-path.ts';
import { newDirectory, walk, type GrowingDirectory, type GrowingNode } from './flatten-tree.ts';
import { keptXattrs } from './flatten-xattrs.ts';
import type { BlobReader, ByteString, Extent, FileNode, Metadata } from './tree.ts';

const MAX_ID = 2 ** 32 - 2;
/** Linux device numbers: 12 bits of major, 20 of minor. */
const MAX_MAJOR = 2 ** 12 - 1;
const MAX_MINOR = 2 ** 20 - 1;

export interface LayerContext {
  readonly limits: FlattenLimits;
  readonly blob: BlobReader;
  /** Where the layer begins in the blob. */
  readonly blobBase: number;
  readonly whiteouts: Whiteouts;
  readonly warn: (entry: TarEntry, what: string) => void;
  /** Called for each directory that is made without an entry of its own. */
  readonly onImplicit: () => void;
  readonly signal?: AbortSignal | undefined;
}

/** Entries applied between two looks at the signal. */
const BATCH_ENTRIES = 8192;

/** Checks what can be checked of an entry alone. @throws LAYER_INVALID, LIMIT_EXCEEDED */
export function checkEntry(entry: TarEntry, limits: FlattenLimits): void {
  if (entry.linkPath.length > MAX_PATH_BYTES) {
    throw entryError(entry, `has a link target of ${entry.linkPath.length} bytes`);
  }
  if (entry.linkPath.includes('\0')) throw entryError(entry, 'has a NUL in its link target');
  if (entry.sizeBytes > limits.fileBytes)
    throw entryLimitError(entry, `has ${entry.sizeBytes} bytes`, limits, 'fileBytes');
  if (entry.uid > MAX_ID || entry.gid > MAX_ID) throw entryError(entry, `has the owner ${entry.uid}:${entry.gid}`);
  componentsOf(entry.path, entry, limits);
}

/**
 * Applies one layer to the tree of those below it. Whiteouts and opaque marks act first and only on what lies
 * below, wherever they stand in the layer; then entries are added in their order. Names are taken apart as they are
 * needed: of a layer of a hundred thousand entries, their parts take more memory than the tree.
 * @throws LAYER_INVALID, LIMIT_EXCEEDED with the entry and its byte offset; the tree is then half-changed and of no use.
 */
export async function applyLayer(
  root: GrowingDirectory,
  entries: readonly TarEntry[],
  context: LayerContext,
): Promise<void> {
  const { planned, marks } = splitMarks(entries, context.whiteouts, (entry) =>
    componentsOf(entry.path, entry, context.limits),
  );
  if (marks.length > 0) applyMarks(root, marks, planned, context);
  for (const [i, each] of planned.entries()) {
    if (i % BATCH_ENTRIES === BATCH_ENTRIES - 1) {
      await setImmediate();
      context.signal?.throwIfAborted();
    }
    addEntry(root, each, context);
  }
}

function applyMarks(
  root: GrowingDirectory,
  marks: readonly Mark[],
  planned: readonly TarEntry[],
  context: LayerContext,
): void {
  const directories = new Set<string>();
  for (const entry of planned) {
    if (entry.type === 'directory') directories.add(componentsOf(entry.path, entry, context.limits).join('/'));
  }
  for (const { entry, parents, target } of marks) {
    const parent = walk(root, parents, {
      place: entry,
      limits: context.limits,
      // A link below that this layer replaces by a directory: the mark is about that new directory.
      follow: (depth) => !directories.has(parents.slice(0, depth).join('/')),
    });
    if (target === undefined) parent?.entries.clear();
    else parent?.entries.delete(target);
  }
}

function addEntry(root: GrowingDirectory, entry: TarEntry, context: LayerContext): void {
  const components = componentsOf(entry.path, entry, context.limits);
  const name = components.at(-1);
  if (name === undefined) {
    if (entry.type !== 'directory') throw entryError(entry, `puts a ${entry.type} in the place of the root`);
    root.meta = metadataOf(entry, context);
    return;
  }
  const { limits, onImplicit } = context;
  const parent = walk(root, components.slice(0, -1), { place: entry, limits, onCreate: onImplicit })!;
  const existing = parent.entries.get(name);
  if (entry.type === 'directory' && existing?.kind === 'directory') {
    existing.meta = metadataOf(entry, context);
    return;
  }
  parent.entries.set(
    ownString(name),
    entry.type === 'hardlink' ? linkTarget(root, entry, context) : newNode(entry, context),
  );
}

function newNode(entry: TarEntry, context: LayerContext): GrowingNode {
  const meta = metadataOf(entry, context);
  switch (entry.type) {
    case 'directory':
      return newDirectory(meta);
    case 'symlink':
      // Linux shows all symlinks with these bits, whatever an archive says.
      return { kind: 'symlink', meta: { ...meta, mode: 0o777 }, target: entry.linkPath };
    case 'fifo':
      return { kind: 'fifo', meta };
    case 'character-device':
    case 'block-device': {
      const { type, devMajor: major, devMinor: minor } = entry;
      if (type === 'character-device' && major === 0 && minor === 0) {
        throw entryError(entry, 'is the device 0/0, which overlay filesystems take for a whiteout');
      }
      if (major > MAX_MAJOR || minor > MAX_MINOR) throw entryError(entry, `has the device number ${major}/${minor}`);
      return { kind: type, meta, major, minor };
    }
    default:
      return newFile(entry, meta, context);
  }
}

function newFile(entry: TarEntry, meta: Metadata, { blob, blobBase }: LayerContext): FileNode {
  const { sizeBytes, sparse } = entry;
  let blobOffset = blobBase + entry.dataOffset;
  if (sparse === undefined) {
    // Arrays that grow have room for seventeen.
    const extents = sizeBytes === 0 ? [] : [{ fileOffset: 0, lengthBytes: sizeBytes, blob, blobOffset }];
    return { kind: 'file', meta, sizeBytes, extents };
  }
  const extents: Extent[] = [];
  for (const { fileOffset, lengthBytes } of sparse) {
    if (lengthBytes > 0) extents.push({ fileOffset, lengthBytes, blob, blobOffset });
    blobOffset += lengthBytes;
  }
  return { kind: 'file', meta, sizeBytes, extents };
}

const nameBuffer = Buffer.alloc(255);

/** The same name in memory of its own: a part of a path would keep the whole path. */
function ownString(name: ByteString): ByteString {
  return nameBuffer.toString('latin1', 0, nameBuffer.write(name, 'latin1'));
}

/** The node a hard link names. The link's own metadata does not count: the file keeps what it has. */
function linkTarget(root: GrowingDirectory, entry: TarEntry, context: LayerContext): GrowingNode {
  const components = componentsOf(entry.linkPath, entry, context.limits);
  const name = components.at(-1);
  const options = { place: entry, limits: context.limits };
  const node = name === undefined ? root : walk(root, components.slice(0, -1), options)?.entries.get(name);
  if (node === undefined) throw entryError(entry, 'is a hard link to something that is not there before it');
  if (node.kind === 'directory') throw entryError(entry, 'is a hard link to a directory');
  return node;
}

function metadataOf(entry: TarEntry, context: LayerContext): Metadata {
  const xattrs = keptXattrs(entry, context.limits, (name, why) => {
    context.warn(entry, `extended attribute ${JSON.stringify(name)} dropped: ${why}`);
  });
  const { mode, uid, gid, mtimeSeconds, mtimeNanoseconds } = entry;
  return { mode, uid, gid, mtimeSeconds, mtimeNanoseconds, xattrs };
}
