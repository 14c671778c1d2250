import { createHash } from 'node:crypto';

import type { ImagePiece, RandomAccess } from '@decant/cas';
import * as fc from 'fast-check';

import type { ErofsImage, ImageNode } from './erofs-read.ts';
import type { BlobReader, ByteString, DirectoryNode, Extent, FileNode, Metadata, TreeNode } from './tree.ts';

/** Any 32-byte hash of the bytes will do for planning. */
export const testHash = { blake3: (bytes: Uint8Array): Uint8Array => createHash('sha256').update(bytes).digest() };

export function memoryBlob(bytes: Uint8Array): BlobReader {
  return {
    readSync(target, position) {
      const part = bytes.subarray(position, position + target.length);
      target.set(part);
      return part.length;
    },
  };
}

export function meta(change: Partial<Metadata> = {}): Metadata {
  return { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 1_700_000_000, mtimeNanoseconds: 0, xattrs: [], ...change };
}

export function file(content: Uint8Array | string, change: Partial<Metadata> = {}): FileNode {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  const extent: Extent = { fileOffset: 0, lengthBytes: bytes.length, blob: memoryBlob(bytes), blobOffset: 0 };
  return { kind: 'file', meta: meta(change), sizeBytes: bytes.length, extents: bytes.length === 0 ? [] : [extent] };
}

export function directory(
  entries: Readonly<Record<ByteString, TreeNode>> | Iterable<[ByteString, TreeNode]> = {},
  change: Partial<Metadata> = {},
): DirectoryNode {
  const pairs = Symbol.iterator in entries ? entries : Object.entries(entries);
  return { kind: 'directory', meta: meta({ mode: 0o755, ...change }), entries: new Map(pairs) };
}

/** Bytes that differ from page to page and from seed to seed. */
export function noise(seed: number, lengthBytes: number): Uint8Array {
  const bytes = Buffer.alloc(lengthBytes);
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  for (let i = 0; i < lengthBytes; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state & 0xff;
  }
  return bytes;
}

/** The image's bytes; and checks what pieces promise. */
export async function collect(pieces: AsyncIterable<ImagePiece>): Promise<{ bytes: Buffer; cuts: number[] }> {
  const parts: Uint8Array[] = [];
  const cuts: number[] = [];
  let position = 0;
  for await (const piece of pieces) {
    if (piece.type === 'cut') {
      if (position % 4096 !== 0) throw new Error(`a cut at ${position}`);
      cuts.push(position);
      continue;
    }
    const part = piece.type === 'data' ? piece.bytes.slice() : new Uint8Array(piece.lengthBytes);
    parts.push(part);
    position += part.length;
  }
  return { bytes: Buffer.concat(parts), cuts };
}

export function memoryAccess(bytes: Uint8Array): RandomAccess {
  return {
    sizeBytes: bytes.length,
    read: (offset, lengthBytes) => {
      if (offset < 0 || offset + lengthBytes > bytes.length) return Promise.reject(new RangeError('out of range'));
      return Promise.resolve(bytes.slice(offset, offset + lengthBytes));
    },
  };
}

/** One line per name: everything a filesystem says about it. Hard links show the first of their names. */
export async function describeTree<N extends TreeNode | ImageNode>(
  root: N,
  contentOf: (node: N & { kind: 'file' }) => Promise<Uint8Array>,
): Promise<string[]> {
  const lines: string[] = [];
  const first = new Map<N, string>();
  const visit = async (node: N, path: string): Promise<void> => {
    const { mode, uid, gid, mtimeSeconds, mtimeNanoseconds, xattrs } = node.meta;
    const attributes = xattrs.map(({ name, value }) => `${name}=${Buffer.from(value).toString('hex')}`).join(',');
    let rest = '';
    if (first.has(node)) rest = `same as ${first.get(node)}`;
    else if (node.kind === 'file') {
      const content = await contentOf(node as N & { kind: 'file' });
      rest = `${node.sizeBytes} ${createHash('sha256').update(content).digest('hex')}`;
    } else if (node.kind === 'symlink') rest = JSON.stringify(node.target);
    else if (node.kind === 'character-device' || node.kind === 'block-device') rest = `${node.major}:${node.minor}`;
    first.set(node, path);
    const facts = `${node.kind} ${mode.toString(8)} ${uid}:${gid} ${mtimeSeconds}.${mtimeNanoseconds}`;
    lines.push(`${JSON.stringify(path)} ${facts} [${attributes}] ${rest}`);
    if (node.kind !== 'directory') return;
    const names = [...node.entries].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [name, child] of names) await visit(child as N, `${path}/${name}`);
  };
  await visit(root, '');
  return lines;
}

/** A tree's file content by its extents alone. */
export function contentOf(node: FileNode): Promise<Uint8Array> {
  const bytes = new Uint8Array(node.sizeBytes);
  for (const { fileOffset, lengthBytes, blob, blobOffset } of node.extents) {
    blob.readSync(bytes.subarray(fileOffset, fileOffset + lengthBytes), blobOffset);
  }
  return Promise.resolve(bytes);
}

export const describeSource = (root: DirectoryNode) => describeTree<TreeNode>(root, (node) => contentOf(node));

export const describeImage = (image: Pick<ErofsImage, 'root' | 'readFile'>) =>
  describeTree<ImageNode>(image.root, (node) => image.readFile(node, 0, node.sizeBytes));

const byteName = fc
  .array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 24 })
  .map((bytes) => Buffer.from(bytes.map((byte) => (byte === 0x2f ? 0x5f : byte))).toString('latin1'))
  .filter((name) => name !== '.' && name !== '..');

const anyName = fc.oneof(
  fc.constantFrom('!', '-', '.-', '..a', '.\xff', ' ', '"', "a'b\\", '<2>', 'x'.repeat(255), 'ümläut', 'a\nb'),
  byteName,
);

const anyXattrs = fc
  .uniqueArray(
    fc.record({
      name: fc.oneof(
        fc.constantFrom('security.capability', 'trusted.overlay.opaque', 'user.x', 'user.y'),
        byteName.map((name) => `user.${name}`),
      ),
      // Few values, so that inodes share some.
      value: fc.oneof(fc.constantFrom(noise(1, 60), noise(2, 20), noise(3, 5)), fc.uint8Array({ maxLength: 80 })),
    }),
    { selector: ({ name }) => name, maxLength: 3 },
  )
  .map((xattrs) => xattrs.sort((a, b) => (a.name < b.name ? -1 : 1)));

const anyMeta: fc.Arbitrary<Metadata> = fc.record({
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.oneof(fc.constantFrom(0, 1000, 4_000_000_000), fc.integer({ min: 0, max: 0xffff_fffe })),
  gid: fc.integer({ min: 0, max: 0xffff_fffe }),
  mtimeSeconds: fc.oneof(
    fc.constantFrom(0, -1, 7_258_118_400),
    fc.integer({ min: -2_000_000_000, max: 7_258_118_400 }),
  ),
  mtimeNanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
  xattrs: anyXattrs,
});

const anyFile = fc
  .record({
    meta: anyMeta,
    seed: fc.nat(1000),
    /** Alternately a hole and data, in bytes. */
    runs: fc.array(fc.oneof(fc.constantFrom(0, 1, 4096, 8192, 140_000), fc.nat(20_000)), { maxLength: 6 }),
  })
  .map(({ meta, seed, runs }): FileNode => {
    const extents: Extent[] = [];
    let at = 0;
    for (const [i, lengthBytes] of runs.entries()) {
      if (i % 2 === 1 && lengthBytes > 0) {
        extents.push({
          fileOffset: at,
          lengthBytes,
          blob: memoryBlob(noise(seed + i, lengthBytes + 7)),
          blobOffset: 7,
        });
      }
      at += lengthBytes;
    }
    return { kind: 'file', meta, sizeBytes: at, extents };
  });

const anyLeaf: fc.Arbitrary<TreeNode> = fc.oneof(
  { weight: 5, arbitrary: anyFile },
  fc.record({
    kind: fc.constant('symlink' as const),
    meta: anyMeta,
    target: fc.oneof(byteName, fc.constantFrom('/a/b', 'y'.repeat(4095), 'z'.repeat(4000), 'w'.repeat(61))),
  }),
  fc.record({
    kind: fc.constantFrom('character-device' as const, 'block-device' as const),
    meta: anyMeta,
    major: fc.nat(0xfff),
    minor: fc.nat(0xfffff),
  }),
  fc.record({ kind: fc.constantFrom('fifo' as const, 'socket' as const), meta: anyMeta }),
);

/** Random trees with every kind of node and odd names; some leaves appear under several names. */
export const anyTree: fc.Arbitrary<DirectoryNode> = fc
  .array(anyLeaf, { minLength: 1, maxLength: 8 })
  .chain((leaves) => {
    const { tree } = fc.letrec<{ tree: DirectoryNode; node: TreeNode }>((tie) => ({
      node: fc.oneof({ depthSize: 'small', maxDepth: 5 }, fc.constantFrom(...leaves), tie('tree')),
      tree: fc
        .record({ meta: anyMeta, entries: fc.array(fc.tuple(anyName, tie('node')), { maxLength: 6 }) })
        .map(({ meta, entries }): DirectoryNode => ({ kind: 'directory', meta, entries: new Map(entries) })),
    }));
    return tree;
  });
