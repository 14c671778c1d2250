import { DecantError, Scope } from '@decant/core';
import {
  flattenImage,
  readErofs,
  readExt4,
  type DirectoryNode,
  type ErofsImage,
  type ImageNode,
  type Scratch,
  type TreeNode,
} from '@decant/rootfs';
import type { RootTree } from '@decant/publish';

import { openDisk } from './image-disk.ts';
import { inspectImage } from './image-names.ts';
import { rootOfOverlay } from './image-transfer-overlay.ts';
import { rootOfDirectory, rootOfTar } from './image-transfer-root.ts';
import { openSource } from './image-transfer-source.ts';
import { parsePlatform } from './image-transfer.ts';
import { isLayered, parseSource } from './import-source.ts';
import type { Session, WorkOptions } from './session.ts';

const PIECE_BYTES = 4 * 1024 * 1024;

/** A base to build upon: its files and how it is run. */
export type BaseTree = RootTree & AsyncDisposable;

/**
 * Opens a base image as a tree: a source as `image import` takes it (`registry:REF`, `docker:REF`, `oci:DIR`, …), or a
 * image of decant by name or id.
 * @throws USAGE for a disk (`raw:`), ROOTFS_UNSUPPORTED for an ext4 filesystem of others that has what ours have not.
 */
export async function openBaseTree(
  session: Session,
  base: string,
  options: WorkOptions & { readonly scratchDirectory: string; readonly platform?: string | undefined },
): Promise<BaseTree> {
  if (!/^(registry|docker|podman|buildah|oci|oci-archive|docker-archive|tar|dir|overlay2|raw):./s.test(base)) {
    return openOwn(session, base, options);
  }
  const source = parseSource(base);
  const nothing = { [Symbol.asyncDispose]: () => Promise.resolve() };
  if (isLayered(source)) {
    const image = await openSource(session, source, { ...options, platform: parsePlatform(options.platform) });
    return {
      config: image.config,
      flatten: (flattening) => flattenImage(image, flattening),
      [Symbol.asyncDispose]: () => image[Symbol.asyncDispose](),
    };
  }
  if (source.kind === 'tar') return { ...rootOfTar(source.path), ...nothing };
  if (source.kind === 'dir') return { ...(await rootOfDirectory(source.path, options)), ...nothing };
  if (source.kind === 'overlay2') return { ...(await rootOfOverlay(source.path, options)), ...nothing };
  throw new DecantError('USAGE', 'A disk image (raw:) is no base.', {
    hint: 'Import it first and name the image, or name the base as registry:REF, docker:REF or oci:DIR.',
  });
}

async function openOwn(
  session: Session,
  ref: string,
  options: WorkOptions & { readonly scratchDirectory: string },
): Promise<BaseTree> {
  const { signal } = options;
  const { image, config } = await inspectImage(session, ref, { signal });
  await using scope = new Scope();
  const { disk } = scope.use(await openDisk(session, image.id, options));
  const files = image.filesystem === 'ext4' ? await readExt4(disk, { signal }) : await readErofs(disk, { signal });
  const architecture = image.architecture === null ? {} : { architecture: image.architecture };
  const kept = scope.move();
  return {
    config: config ?? { os: 'linux', ...architecture },
    flatten: async ({ scratch }) => ({ root: await copyTree(files, scratch, signal), warnings: [] }),
    [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose](),
  };
}

/** The tree of an image of either filesystem. */
type ReadTree = Pick<ErofsImage, 'root' | 'readFile'>;

/** The tree with the content of its files in the scratch file; holes stay holes, second names second names. */
async function copyTree(files: ReadTree, scratch: Scratch, signal: AbortSignal | undefined): Promise<DirectoryNode> {
  const copied = new Map<ImageNode, TreeNode>();
  const copy = async (node: ImageNode): Promise<TreeNode> => {
    const known = copied.get(node);
    if (known !== undefined) return known;
    const made = await make(node);
    copied.set(node, made);
    return made;
  };
  const make = async (node: ImageNode): Promise<TreeNode> => {
    if (node.kind === 'directory') {
      const entries = new Map<string, TreeNode>();
      for (const [name, child] of node.entries) entries.set(name, await copy(child));
      return { kind: 'directory', meta: node.meta, entries };
    }
    if (node.kind !== 'file') return node;
    const extents = [];
    for (const { fileOffset, lengthBytes } of node.ranges) {
      const blobOffset = scratch.sizeBytes;
      for (let done = 0; done < lengthBytes; done += PIECE_BYTES) {
        const size = Math.min(PIECE_BYTES, lengthBytes - done);
        await scratch.append(await files.readFile(node, fileOffset + done, size, { signal }));
      }
      extents.push({ fileOffset, lengthBytes, blob: scratch, blobOffset });
    }
    return { kind: 'file', meta: node.meta, sizeBytes: node.sizeBytes, extents };
  };
  return (await make(files.root)) as DirectoryNode;
}
