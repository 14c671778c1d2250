import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import { createScratch, sortedEntries, type DirectoryNode, type FileNode, type Scratch } from '@decant/rootfs';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';

import { rootOfOverlay } from './image-transfer-overlay.ts';
import { rootOfTar } from './image-transfer-root.ts';

const [busybox, buildah, runc] = await Promise.all(['busybox', 'buildah', 'runc'].map(findProgram));
const isRoot = process.getuid?.() === 0;
const docker = isRoot && busybox !== undefined && inject('dockerHost') !== null;

let directory: string;
let scratch: Scratch;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'overlay-source-'));
  scratch = await createScratch(directory);
});
afterEach(async () => {
  await scratch[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

/** What stands at each path, times aside. */
function listing(root: DirectoryNode): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  const visit = (node: DirectoryNode, path: string) => {
    for (const [name, child] of sortedEntries(node)) {
      const { mode, uid, gid } = child.meta;
      found[`${path}/${name}`] = [child.kind, mode, uid, gid, child.kind === 'file' ? textOf(child) : ''];
      if (child.kind === 'directory') visit(child, `${path}/${name}`);
    }
  };
  visit(root, '');
  return found;
}

function textOf(file: FileNode): string {
  const bytes = Buffer.alloc(Math.min(file.sizeBytes, 64));
  for (const { fileOffset, blob, blobOffset } of file.extents.slice(0, 1)) {
    blob.readSync(bytes.subarray(fileOffset), blobOffset);
  }
  return `${file.sizeBytes} ${bytes.toString('latin1')}`;
}

const DOCKERFILE = `FROM scratch
COPY busybox /bin/busybox
COPY tree /tree
RUN ["/bin/busybox", "rm", "/tree/gone"]
RUN ["/bin/busybox", "sh", "-c", "b=/bin/busybox; $b rm -r /tree/again; $b mkdir /tree/again; echo new > /tree/again/new"]
RUN ["/bin/busybox", "sh", "-c", "b=/bin/busybox; $b rm -r /tree/file; echo file > /tree/file; $b chmod 4711 /tree/kept; $b rm /tree/link; $b mkdir /tree/link"]
`;

async function context(): Promise<string> {
  const at = join(directory, 'context');
  for (const folder of ['again', 'file']) await mkdir(join(at, 'tree', folder), { recursive: true });
  for (const name of ['gone', 'kept', 'again/old', 'file/below']) await writeFile(join(at, 'tree', name), name);
  await symlink('again', join(at, 'tree/link'));
  await copyFile(busybox!, join(at, 'busybox'));
  await writeFile(join(at, 'Dockerfile'), DOCKERFILE);
  return at;
}

const flatten = async (path: string) =>
  listing((await (await rootOfOverlay(path, { scratchDirectory: directory })).flatten({ scratch })).root);

describe.skipIf(!docker)('[backend:docker] a chain of directories of overlay2', () => {
  it('is what a container of the image would see', async () => {
    const name = `overlay-source-${process.pid}`;
    const options = { env: { ...process.env, DOCKER_BUILDKIT: '0' }, timeoutMs: 240_000 };
    const tool = async (...args: string[]) => (await run('docker', args, options)).stdout.toString().trim();
    const exported = join(directory, 'exported.tar');
    let upper: string;
    try {
      await tool('build', '--quiet', '--network', 'none', '--tag', name, await context());
      upper = await tool('image', 'inspect', '--format', '{{.GraphDriver.Data.UpperDir}}', name);
      const container = await tool('create', name, '/none');
      await tool('export', '--output', exported, container);
      await tool('rm', container);
      const seen = await flatten(upper);
      const expected = listing((await rootOfTar(exported).flatten({ scratch })).root);
      // What docker mounts and makes in every container.
      for (const path of Object.keys(expected))
        if (/^\/(dev|etc|proc|sys|\.dockerenv)(\/|$)/.test(path)) delete expected[path];
      // The steps ran in containers, too: their mount points stayed behind as empty directories.
      for (const path of Object.keys(seen)) if (/^\/(dev|etc|proc|sys)(\/|$)/.test(path)) delete seen[path];
      expect(seen).toEqual(expected);
      expect(Object.keys(seen)).toContain('/tree/again/new');
      expect(Object.keys(seen)).not.toContain('/tree/again/old');
      expect(Object.keys(seen)).not.toContain('/tree/gone');
      expect(await readFile(join(dirname(upper), 'lower'), 'utf8')).toMatch(/^(l\/[A-Z0-9]+:){2,}l\/[A-Z0-9]+$/);
    } finally {
      await run('docker', ['image', 'rm', '--force', name], { okCodes: [0, 1] });
    }
  });
});

describe.skipIf(!isRoot || buildah === undefined || runc === undefined || busybox === undefined)(
  '[backend:buildah] a chain of directories of containers/storage',
  () => {
    it('is what buildah mounts', async () => {
      const storage = [
        '--root',
        join(directory, 'root'),
        '--runroot',
        join(directory, 'run'),
        '--storage-driver',
        'overlay',
      ];
      const tool = async (...args: string[]) =>
        (await run(buildah!, [...storage, ...args], { timeoutMs: 240_000 })).stdout.toString().trim();
      await tool('bud', '--quiet', '--layers', '--isolation', 'chroot', '--tag', 'localhost/overlay', await context());
      const working = await tool('from', '--pull-never', 'localhost/overlay');
      const mounted = await tool('mount', working);
      try {
        const archive = join(directory, 'mounted.tar');
        await run('tar', ['-cf', archive, '--numeric-owner', '-C', mounted, '.']);
        const seen = await flatten(dirname(mounted));
        expect(seen).toEqual(listing((await rootOfTar(archive).flatten({ scratch })).root));
        expect(Object.keys(seen)).toContain('/tree/again/new');
        expect(Object.keys(seen)).not.toContain('/tree/again/old');
      } finally {
        await tool('umount', working);
        await tool('rm', working);
        await tool('rmi', '--all', '--force');
      }
    });
  },
);

describe('what is no chain of directories', () => {
  it.each([
    ['nothing', async () => undefined],
    ['no diff', async (at: string) => mkdir(at)],
    ['a diff that is a file', async (at: string) => (await mkdir(at), await writeFile(join(at, 'diff'), ''))],
    ['a diff elsewhere', async (at: string) => (await mkdir(at), await symlink('/etc', join(at, 'diff')))],
    ...['l/../../etc', '/etc', 'l/NOTHERE', 'l/A::l/A', `${'l/A:'.repeat(600)}l/A`].map(
      (lower) =>
        [
          `lower ${lower.slice(0, 20)}`,
          async (at: string) => {
            await mkdir(join(at, 'diff'), { recursive: true });
            await mkdir(join(at, '../l/A'), { recursive: true });
            await writeFile(join(at, 'lower'), lower);
          },
        ] as const,
    ),
  ] as const)('is refused: %s', async (_, make) => {
    const at = join(directory, 'layer');
    await make(at);
    await expect(rootOfOverlay(at, { scratchDirectory: directory })).rejects.toMatchObject({
      code: 'OCI_SOURCE_INVALID',
    });
  });
});
