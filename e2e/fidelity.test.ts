import { cp, mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { debianBase, temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { awkwardLayer } from './support/awkward-tree.ts';
import { decantJson, ROOT, startDecant, succeed, type MadeImage } from './support/decant.ts';
import { layoutOfTars } from './support/layout-of-tars.ts';
import { have, isRoot, output, tool } from './support/programs.ts';
import { listTree } from './support/tree-listing.ts';

const available =
  isRoot && have('mmdebstrap', 'getfattr', 'fsck.erofs', 'umoci', 'skopeo', 'nbdinfo', 'nbdcopy', 'qemu-img');

describe.skipIf(!available)('a Debian tree with awkward entries', () => {
  let folder: TemporaryDirectory;
  let home: string;
  let layout: string;
  let first: MadeImage;
  let raw: string;

  beforeAll(async () => {
    const base = await debianBase({ cacheFolder: join(ROOT, '.cache') });
    folder = await temporaryDirectory('decant-e2e-');
    home = join(folder.path, 'home');
    layout = join(folder.path, 'layout');
    raw = join(folder.path, 'exported.raw');
    const extra = join(folder.path, 'awkward.tar');
    await awkwardLayer(folder.path, extra);
    await layoutOfTars(layout, [base, extra], { Cmd: ['/bin/sh'], Env: ['A=b'] });
    first = await decantJson(['image', 'import', `oci:${layout}`, '--streaming', '-n', 'debian:awkward'], { home });
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  test('[backend:erofs-utils] the exported image passes fsck.erofs', async () => {
    expect(first.image).toMatchObject({ name: 'debian', tag: 'awkward', format: 'cas-streaming' });
    expect(first.image.id).toMatch(/^cas-v1:[0-9a-f]{64}$/);
    expect(first.image.contentBytes).toBeGreaterThan(100_000_000);
    expect(first.chunks!.new).toBe(first.chunks!.total);
    await succeed(['image', 'export', 'debian:awkward', '--raw', raw], { home });
    expect((await stat(raw)).size).toBe(first.image.virtualBytes);
    // It says what is wrong with its exit status.
    await tool('fsck.erofs', [raw]);
  });

  test('[backend:umoci] the mounted image is the tree that umoci makes of it', async () => {
    const bundle = join(folder.path, 'bundle');
    await tool('umoci', ['unpack', '--image', `${layout}:latest`, bundle]);
    const target = join(folder.path, 'mounted');
    await mkdir(target);
    await tool('mount', ['-t', 'erofs', '-o', 'ro,loop', raw, target]);
    try {
      const ours = await listTree(target);
      const theirs = await listTree(join(bundle, 'rootfs'));
      expect(ours.length).toBeGreaterThan(7000);
      for (const part of [
        'setuid',
        'user.long=0x',
        'security.capability=0x',
        'posix_acl_access=0x',
        'mtime=1709210096123456789',
      ]) {
        expect(
          ours.some((line) => line.startsWith('awkward/') && line.includes(part)),
          part,
        ).toBe(true);
      }
      // An empty value is kept by us. umoci loses it: Go's archive/tar takes an empty pax record for none.
      const withoutEmpty = ours.map((line) => line.replace(' user.empty=0x ', ' '));
      expect(withoutEmpty).not.toEqual(ours);
      expect(differences(withoutEmpty, theirs)).toEqual([]);
    } finally {
      await tool('umount', [target]);
    }
    await tool('rm', ['-rf', bundle]);
  });

  test('the same image from another folder, compressed otherwise, and from docker-archive has the same id and nothing new', async () => {
    const copy = join(folder.path, 'elsewhere', 'copy');
    await cp(layout, copy, { recursive: true });
    await sameAgain(`oci:${copy}`);
    const relaid = join(folder.path, 'relaid');
    await tool('skopeo', [
      'copy',
      '--quiet',
      '--dest-compress-format',
      'zstd',
      '--dest-compress-level',
      '1',
      '--dest-compress',
      `oci:${layout}:latest`,
      `dir:${join(folder.path, 'zstd')}`,
    ]);
    await tool('skopeo', ['copy', '--quiet', `dir:${join(folder.path, 'zstd')}`, `oci:${relaid}:again`]);
    await sameAgain(`oci:${relaid}:again`);
    const archive = join(folder.path, 'image.tar');
    await tool('skopeo', ['copy', '--quiet', `oci:${layout}:latest`, `docker-archive:${archive}:debian:other`]);
    await sameAgain(`docker-archive:${archive}`);
  });

  async function sameAgain(source: string): Promise<void> {
    const again = await decantJson<MadeImage>(['image', 'import', source, '--streaming', '-n', 'again'], { home });
    expect(again.image.id, source).toBe(first.image.id);
    expect(again.chunks, source).toEqual({ total: first.chunks!.total, new: 0, reused: first.chunks!.total });
    expect(again.bytes, source).toMatchObject({ new: 0, stored: 0 });
    // The manifest and the configuration are all that travels.
    expect(again.bytes.uploaded, source).toBeLessThan(200_000);
  }

  test('[backend:libnbd] [backend:qemu-utils] NBD clients read what export writes', async () => {
    const socket = join(folder.path, 'nbd.sock');
    await using server = startDecant(['image', 'serve', 'debian:awkward', '--socket', socket, '--json'], { home });
    const [line] = await server.seen(/^\{.*\}$/m);
    const { uri, sizeBytes } = JSON.parse(line) as { uri: string; exportName: string; sizeBytes: number };
    expect(sizeBytes).toBe(first.image.virtualBytes);
    const [info] = (JSON.parse(await output('nbdinfo', ['--json', uri])) as { exports: Record<string, unknown>[] })
      .exports;
    expect(info).toMatchObject({ 'export-size': first.image.virtualBytes, is_read_only: true, can_multi_conn: true });
    const copy = join(folder.path, 'copied.raw');
    await tool('nbdcopy', [uri, copy]);
    await tool('cmp', [copy, raw]);
    const facts = JSON.parse(await output('qemu-img', ['info', '--output=json', uri])) as Record<string, unknown>;
    expect(facts).toMatchObject({ 'virtual-size': first.image.virtualBytes, format: 'raw' });
    expect(await output('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, uri])).toContain('identical');
    server.signal('SIGINT', 'group');
    expect((await server.ended).status).toBe(0);
    await expect(stat(socket)).rejects.toThrow('ENOENT');
  });
});

/** The first lines that only one side has. */
function differences(ours: readonly string[], theirs: readonly string[]): string[] {
  const one = new Set(ours);
  const other = new Set(theirs);
  const onlyOurs = ours.filter((line) => !other.has(line)).map((line) => `ours   ${line}`);
  const onlyTheirs = theirs.filter((line) => !one.has(line)).map((line) => `theirs ${line}`);
  return [...onlyOurs.slice(0, 20), ...onlyTheirs.slice(0, 20)].map((line) => line.slice(0, 400));
}
