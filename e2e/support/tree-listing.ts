import { createHash } from 'node:crypto';
import { createReadStream, type BigIntStats } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';

import { tool } from './programs.ts';

export interface ListOptions {
  /** Leave the time out of the line of an entry, by its path (latin1, no leading slash; `.` is the root). */
  readonly withoutTime?: (path: string) => boolean;
}

/**
 * Everything a file system tells about a tree, a line per entry in byte order of the paths: type and mode, owner, size, time in
 * nanoseconds, device number, link target, SHA-256 of the content, the first path of the same inode, extended
 * attributes. Two trees are equal when their listings are.
 */
export async function listTree(root: string, options: ListOptions = {}): Promise<string[]> {
  const xattrs = await listXattrs(root);
  const firstPaths = new Map<bigint, string>();
  const lines: string[] = [];
  const visit = async (path: Buffer, name: string): Promise<void> => {
    const info = await lstat(path, { bigint: true });
    const facts = [
      name,
      `mode=${info.mode.toString(8)}`,
      `owner=${info.uid}:${info.gid}`,
      ...(options.withoutTime?.(name) === true ? [] : [`mtime=${info.mtimeNs}`]),
    ];
    if (!info.isDirectory()) {
      const first = firstPaths.get(info.ino);
      if (first === undefined) firstPaths.set(info.ino, name);
      facts.push(`links=${info.nlink}`, ...(first === undefined ? await contentOf(path, info) : [`same=${first}`]));
    }
    const attributes = xattrs.get(name);
    if (attributes !== undefined) facts.push(...attributes);
    lines.push(facts.join(' '));
    if (!info.isDirectory()) return;
    const children = await readdir(path, { encoding: 'buffer' });
    for (const child of children.sort((a, b) => a.compare(b))) {
      const text = child.toString('latin1');
      await visit(Buffer.concat([path, Buffer.from('/'), child]), name === '.' ? text : `${name}/${text}`);
    }
  };
  await visit(Buffer.from(root), '.');
  return lines;
}

async function contentOf(path: Buffer, info: BigIntStats): Promise<string[]> {
  if (info.isSymbolicLink()) return [`target=${(await readlink(path, 'buffer')).toString('latin1')}`];
  if (info.isCharacterDevice() || info.isBlockDevice()) return [`device=${info.rdev}`];
  if (!info.isFile()) return [];
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return [`size=${info.size}`, `sha256=${hash.digest('hex')}`];
}

/** Extended attributes of all entries that have any, by path, as getfattr tells them: `name=0x…`, sorted. */
async function listXattrs(root: string): Promise<Map<string, string[]>> {
  const { stdout } = await tool(
    'getfattr',
    ['--recursive', '--physical', '--no-dereference', '--dump', '--match=-', '--encoding=hex', '.'],
    {
      cwd: root,
      keepBytes: 64 * 1024 * 1024,
    },
  );
  const found = new Map<string, string[]>();
  for (const block of stdout.toString('latin1').split('\n\n')) {
    const [head = '', ...attributes] = block.split('\n').filter((line) => line !== '');
    if (!head.startsWith('# file: ')) continue;
    const path = head
      .slice('# file: '.length)
      .replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
    found.set(path, attributes.sort());
  }
  return found;
}
