import type { ContextEntry } from '@decant/context';
import type { DirectoryTree } from '@decant/context/node';
import { DecantError, type ImageConfig } from '@decant/core';
import { resolveUser, type ImageUser } from '@decant/jail';
import {
  byteStringOf,
  nodeAt,
  readNode,
  realComponents,
  withNode,
  type ByteString,
  type DirectoryNode,
  type FileNode,
  type Metadata,
  type Scratch,
  type TreeNode,
} from '@decant/rootfs';

/** Largest file of an image that is read to be added to. */
const LARGEST_FILE = 16 * 1024 * 1024;
const WORKSPACE_LABEL = 'dev.decant.workspace';

/** Where an image's user works: `workspace` in the user's home. */
export interface Workplace {
  readonly user: ImageUser;
  /** Absolute. */
  readonly path: string;
}

/** Finds the user that the image runs as, and the user's home. @throws JAIL_FAILED for a user it does not have. */
export function workplaceOf(root: DirectoryNode, config: ImageConfig): Workplace {
  const text = (path: string) => textAt(root, path) ?? '';
  const user = resolveUser(config.config?.User, text('/etc/passwd'), text('/etc/group'));
  const home = user.home.startsWith('/') ? user.home.replace(/\/+$/, '') : '';
  return { user, path: `${home}/workspace` };
}

/**
 * Puts a directory into the tree as the workspace, in place of what is there, owned by the image's user, and marks it
 * trusted: git takes it as safe whoever runs it (`safe.directory` in /etc/gitconfig), and agents that keep their
 * trust in `~/.claude.json` do not ask. All times are 0, so equal directories make equal images.
 */
export async function addWorkspace(
  root: DirectoryNode,
  { user, path }: Workplace,
  files: DirectoryTree,
  scratch: Scratch,
): Promise<DirectoryNode> {
  const { uid, gid } = user;
  const metaOf = (mode: number): Metadata => ({
    mode,
    uid,
    gid,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    xattrs: [],
  });
  const workspace = await workspaceNode(files, metaOf, scratch);
  const own = metaOf(0o755);
  let tree = withNode(root, realComponents(root, path), workspace, own);
  const put = async (at: string, change: (text: string | undefined) => string, fallback: Metadata) => {
    const components = realComponents(tree, at);
    const there = nodeAt(tree, components);
    const text = change(textAt(tree, at));
    const meta = there?.kind === 'file' ? { ...there.meta, mtimeSeconds: 0, mtimeNanoseconds: 0 } : fallback;
    const bytes = Buffer.from(text);
    const blobOffset = scratch.sizeBytes;
    await scratch.append(bytes);
    const extents = [{ fileOffset: 0, lengthBytes: bytes.length, blob: scratch, blobOffset }];
    const file: FileNode = { kind: 'file', meta, sizeBytes: bytes.length, extents };
    tree = withNode(tree, components, file, { ...fallback, mode: 0o755 });
  };
  const root0644: Metadata = { ...metaOf(0o644), uid: 0, gid: 0 };
  await put('/etc/gitconfig', (text) => withSafeDirectory(text, path), root0644);
  const home = path.slice(0, -'/workspace'.length);
  await put(`${home}/.claude.json`, (text) => withTrust(text, path), metaOf(0o600));
  return tree;
}

/** The configuration of an image whose workspace is there: work begins in it, and a label says where it is. */
export function configWithWorkspace(image: ImageConfig, path: string): ImageConfig {
  const { config = {} } = image;
  return {
    ...image,
    config: { ...config, WorkingDir: path, Labels: { ...config.Labels, [WORKSPACE_LABEL]: path } },
  };
}

function textAt(root: DirectoryNode, path: string): string | undefined {
  const node = nodeAt(root, realComponents(root, path));
  return node?.kind === 'file' ? readNode(node, path, LARGEST_FILE).toString('utf8') : undefined;
}

/** git-config(1): several values of `safe.directory` add up. */
export function withSafeDirectory(text: string | undefined, path: string): string {
  const quoted = `"${path.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
  const line = `\tdirectory = ${quoted}\n`;
  if (text === undefined || text === '') return `[safe]\n${line}`;
  if (text.includes(line)) return text;
  return `${text.endsWith('\n') ? text : `${text}\n`}[safe]\n${line}`;
}

/** Claude Code's `projects[PATH].hasTrustDialogAccepted`. @throws CONFIG_INVALID when the image's file is no object. */
export function withTrust(text: string | undefined, path: string): string {
  let settings: unknown;
  try {
    settings = text === undefined || text.trim() === '' ? {} : JSON.parse(text);
  } catch (error) {
    throw noObject(error);
  }
  if (!isObject(settings)) throw noObject();
  const projects = isObject(settings['projects']) ? settings['projects'] : {};
  const project = isObject(projects[path]) ? projects[path] : {};
  const trusted = { ...project, hasTrustDialogAccepted: true };
  return `${JSON.stringify({ ...settings, projects: { ...projects, [path]: trusted } }, null, 2)}\n`;
}

function noObject(cause?: unknown): DecantError {
  return new DecantError('CONFIG_INVALID', 'The file ~/.claude.json of the base image is no JSON object.', { cause });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The files as a node of a tree, their content in the scratch file. */
async function workspaceNode(
  files: DirectoryTree,
  metaOf: (mode: number) => Metadata,
  scratch: Scratch,
): Promise<DirectoryNode> {
  const top = { kind: 'directory' as const, meta: metaOf(0o755), entries: new Map<ByteString, TreeNode>() };
  const directories = new Map<ByteString, typeof top>([['', top]]);
  const nodes = new Map<ByteString, TreeNode>();
  for (const entry of files.entries) {
    const path = byteStringOf(entry.pathBytes ?? Buffer.from(entry.path));
    const slash = path.lastIndexOf('/');
    const node = await nodeOf(entry);
    if (node.kind === 'directory') directories.set(path, node as typeof top);
    nodes.set(path, node);
    directories.get(path.slice(0, Math.max(0, slash)))!.entries.set(path.slice(slash + 1), node);
  }
  return top;

  async function nodeOf(entry: ContextEntry): Promise<TreeNode> {
    const meta = metaOf(entry.mode);
    if (entry.type === 'directory') return { kind: 'directory', meta, entries: new Map() };
    const target = byteStringOf(entry.linkTargetBytes ?? Buffer.from(entry.linkTarget ?? ''));
    if (entry.type === 'symlink') return { kind: 'symlink', meta, target };
    // The first name comes first: the entries are sorted, and the link names the least.
    if (entry.type === 'hardlink') return nodes.get(target)!;
    const blobOffset = scratch.sizeBytes;
    for await (const piece of files.read(entry)) await scratch.append(piece);
    const extents = [{ fileOffset: 0, lengthBytes: entry.sizeBytes, blob: scratch, blobOffset }];
    return { kind: 'file', meta, sizeBytes: entry.sizeBytes, extents: entry.sizeBytes === 0 ? [] : extents };
  }
}
