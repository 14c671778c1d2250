import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { findProgram } from '@decant/core/node';
import { openDockerArchive, openOciLayout, type OciImage } from '@decant/oci';
import { failure, LayoutMaker, makeTar, type TarSpec } from '@decant/oci/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { flattenImage } from './flatten.ts';
import { createScratch } from './scratch.ts';
import { sortedEntries, type DirectoryNode, type TreeNode } from './tree.ts';

const root = process.getuid?.() === 0;
const has = async (...names: string[]) =>
  root && (await Promise.all(names.map(findProgram))).every((path) => path !== undefined);
const umoci = await has('umoci', 'getfattr');
const skopeo = await has('skopeo');
const buildah = await has('buildah');

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'flatten-system-'));
  const maker = new LayoutMaker(join(directory, 'oci'));
  await maker.image({ layers: LAYERS.map((layer) => makeTar(layer)), tag: 'test', config: { Cmd: ['/bin/true'] } });
  await maker.finish();
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const MTIME = 1_600_000_000;
const f = (path: string, more: Partial<TarSpec> = {}): TarSpec => ({ path, data: `${path}\n`, mtime: MTIME, ...more });
const d = (path: string, more: Partial<TarSpec> = {}): TarSpec => ({ path: `${path}/`, mtime: MTIME + 1, ...more });
const l = (path: string, link: string): TarSpec => ({ path, link, type: '2', mtime: MTIME + 2 });

const LAYERS: readonly (readonly TarSpec[])[] = [
  [
    d('.'),
    d('usr'),
    d('usr/lib'),
    l('lib', 'usr/lib'),
    d('d'),
    f('d/gone'),
    f('d/stays'),
    d('opaque'),
    f('opaque/old'),
    d('opaque/sub'),
    f('opaque/sub/old'),
    d('becomes-file'),
    f('becomes-file/x'),
    f('becomes-dir'),
    l('becomes-real', 'd'),
    f('setuid', { mode: 0o6755, uid: 1000, gid: 50 }),
    f('linked', { mode: 0o640 }),
    { path: 'hard', type: '1', link: 'linked', mtime: MTIME },
    { path: 'hard-to-link', type: '1', link: 'lib', mtime: MTIME },
    { path: 'null', type: '3', dev: [1, 3], mode: 0o666, mtime: MTIME },
    { path: 'disk', type: '4', dev: [8, 300], mtime: MTIME },
    { path: 'pipe', type: '6', mtime: MTIME },
    f('big-owner', { uid: 4_000_000, gid: 4_000_001 }),
    f('attributes', {
      pax: [
        ['SCHILY.xattr.user.k', Buffer.from([0, 1, 255, 10])],
        ['SCHILY.xattr.security.capability', Buffer.from('0100000200040000000000000000000000000000', 'hex')],
        ['mtime', '1600000000.123456789'],
      ],
    }),
    f('before-1970', { pax: [['mtime', '-86400.5']] }),
    f('n'.repeat(200)),
    f('naïve'),
    d('sticky', { mode: 0o1777 }),
  ],
  [
    f('d/.wh.gone'),
    f('opaque/.wh..wh..opq'),
    f('opaque/new'),
    f('becomes-file'),
    d('becomes-dir'),
    f('becomes-dir/y'),
    d('becomes-real'),
    f('becomes-real/z'),
    f('linked', { data: 'replaced' }),
  ],
  [
    d('lib-user'),
    f('lib/through-link'),
    { path: 'late-link', type: '1', link: 'hard', mtime: MTIME },
    d('d', { mode: 0o700 }),
  ],
];

/** One line per inode and name; hard links name their first path. */
type Listing = Record<string, string>;

function line(facts: readonly (string | number | bigint)[], xattrs: readonly string[]): string {
  return [...facts, ...[...xattrs].sort()].join(' ');
}

function listTree(tree: DirectoryNode): Listing {
  const listing: Listing = {};
  const first = new Map<TreeNode, string>();
  const visit = (node: TreeNode, path: string) => {
    const linked = node.kind === 'directory' ? undefined : first.get(node);
    if (linked === undefined) first.set(node, path);
    const { mode, uid, gid, mtimeSeconds, mtimeNanoseconds, xattrs } = node.meta;
    const time = BigInt(mtimeSeconds) * 1_000_000_000n + BigInt(mtimeNanoseconds);
    const facts = [node.kind, mode.toString(8), uid, gid, time, contentOf(node), linked ?? ''];
    listing[path] = line(
      facts,
      xattrs.map(({ name, value }) => `${name}=0x${Buffer.from(value).toString('hex')}`),
    );
    if (node.kind === 'directory') for (const [name, child] of sortedEntries(node)) visit(child, `${path}/${name}`);
  };
  visit(tree, '');
  return listing;
}

function contentOf(node: TreeNode): string {
  if (node.kind === 'symlink') return node.target;
  if ('major' in node) return `${node.major}:${node.minor}`;
  if (node.kind !== 'file') return '';
  const bytes = Buffer.alloc(node.sizeBytes);
  for (const { fileOffset, lengthBytes, blob, blobOffset } of node.extents) {
    blob.readSync(bytes.subarray(fileOffset, fileOffset + lengthBytes), blobOffset);
  }
  return sha(bytes);
}

const sha = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex').slice(0, 16);

async function listDirectory(top: string): Promise<Listing> {
  const listing: Listing = {};
  const first = new Map<bigint, string>();
  const xattrs = readXattrs(top);
  const visit = async (path: string) => {
    const real = Buffer.from(top + path, 'latin1');
    const facts = await lstat(real, { bigint: true });
    const kind = facts.isDirectory()
      ? 'directory'
      : facts.isSymbolicLink()
        ? 'symlink'
        : facts.isFile()
          ? 'file'
          : facts.isFIFO()
            ? 'fifo'
            : facts.isCharacterDevice()
              ? 'character-device'
              : 'block-device';
    const linked = kind === 'directory' ? undefined : first.get(facts.ino);
    if (linked === undefined) first.set(facts.ino, path);
    let content = '';
    if (kind === 'file') content = sha(await readFile(real));
    if (kind === 'symlink') content = (await readlink(real, 'buffer')).toString('latin1');
    if (kind.endsWith('device')) content = deviceOf(Number(facts.rdev));
    const mode = Number(facts.mode & 0o7777n).toString(8);
    listing[path] = line(
      [kind, mode, facts.uid, facts.gid, facts.mtimeNs, content, linked ?? ''],
      xattrs.get(path) ?? [],
    );
    if (kind !== 'directory') return;
    const names = (await readdir(real, 'buffer')).map((name) => name.toString('latin1')).sort();
    for (const name of names) await visit(`${path}/${name}`);
  };
  await visit('');
  return listing;
}

function deviceOf(rdev: number): string {
  return `${(rdev >> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >> 12) & 0xfff00)}`;
}

function readXattrs(top: string): Map<string, string[]> {
  const args = ['-R', '-P', '-h', '-d', '-m', '-', '-e', 'hex', '--absolute-names', top];
  const found = new Map<string, string[]>();
  let path = '';
  for (const row of execFileSync('getfattr', args).toString('latin1').split('\n')) {
    if (row.startsWith('# file: ')) path = row.slice(8 + top.length);
    else if (row !== '') found.set(path, [...(found.get(path) ?? []), row]);
  }
  return found;
}

async function flattened(opening: Promise<OciImage>): Promise<Listing> {
  await using image = await opening;
  await using scratch = await createScratch(directory);
  const { root: tree, warnings } = await flattenImage(image, { scratch });
  expect(warnings).toEqual([]);
  return listTree(tree);
}

describe.skipIf(!umoci)('[backend:umoci] flattenImage', () => {
  it('makes the tree that umoci unpacks', async () => {
    const bundle = join(directory, 'bundle');
    execFileSync('umoci', ['unpack', '--image', `${join(directory, 'oci')}:test`, bundle], { stdio: 'pipe' });
    const theirs = await listDirectory(join(bundle, 'rootfs'));
    expect(await flattened(openOciLayout(join(directory, 'oci')))).toEqual(theirs);
  });
});

describe.skipIf(!skopeo)('[backend:skopeo] flattenImage', () => {
  it.each([
    [
      'docker-archive',
      ['docker-archive:@a.tar:app:1'],
      (at: string) => openDockerArchive(at, { tag: 'app:1' }),
      'a.tar',
    ],
    ['oci-archive', ['oci-archive:@b.tar'], (at: string) => openDockerArchive(at), 'b.tar'],
    [
      'zstd',
      ['--dest-compress-format', 'zstd', '--dest-compress', 'oci:@zstd:x'],
      (at: string) => openOciLayout(at),
      'zstd',
    ],
  ] as const)('reads the same tree from its %s', async (_, target, open, name) => {
    const args = target.map((part) => part.replace('@', `${directory}/`));
    const from = `oci:${join(directory, 'oci')}:test`;
    execFileSync('skopeo', ['copy', '--quiet', '--insecure-policy', ...args.slice(0, -1), from, args.at(-1)!], {
      stdio: 'pipe',
    });
    const ours = await flattened(openOciLayout(join(directory, 'oci')));
    expect(await flattened(open(join(directory, name)))).toEqual(ours);
  });
});

describe.skipIf(!buildah)('[backend:buildah] flattenImage', () => {
  it('reads what it builds, from a layout and an archive', async () => {
    const context = join(directory, 'context');
    await mkdir(context);
    await writeFile(join(context, 'one'), 'one');
    // Of another size: buildah's vfs driver takes equal size and time for an unchanged file.
    await writeFile(join(context, 'two'), 'second');
    await writeFile(
      join(context, 'Dockerfile'),
      'FROM scratch\nCOPY one /d/one\nCOPY two /d/two\nCOPY two /d/one\nENV A=b\n',
    );
    const base = ['--root', join(directory, 'store'), '--runroot', join(directory, 'run'), '--storage-driver', 'vfs'];
    const call = (...args: string[]) => execFileSync('buildah', [...base, ...args], { stdio: 'pipe' });
    call('bud', '--layers', '-q', '-t', 'localhost/app:1', context);
    call('push', '-q', 'localhost/app:1', `oci:${join(directory, 'built')}:1`);
    call('push', '-q', 'localhost/app:1', `docker-archive:${join(directory, 'built.tar')}:app:1`);
    await using image = await openOciLayout(join(directory, 'built'), { tag: '1' });
    expect(image.config.config?.Env).toContain('A=b');
    const tree = await flattened(openOciLayout(join(directory, 'built')));
    expect(tree['/d/one']).toContain(sha(Buffer.from('second')));
    expect(await flattened(openDockerArchive(join(directory, 'built.tar')))).toEqual(tree);
  });
});

describe.skipIf(!(await has('mount', 'umount')))('[backend:tmpfs] createScratch', () => {
  it('says so when the disk is full', async () => {
    const disk = join(directory, 'disk');
    await mkdir(disk);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]);
    try {
      await using scratch = await createScratch(disk);
      await scratch.append(Buffer.alloc(512 * 1024));
      expect(await failure(scratch.append(Buffer.alloc(2 * 1024 * 1024)))).toBe('DISK_FULL');
    } finally {
      execFileSync('umount', [disk]);
    }
  });
});
