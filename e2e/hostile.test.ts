import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';

import { isDecantError } from '../packages/core/src/index.ts';
import { loadNodeHashProvider } from '../packages/cas/src/node/index.ts';
import { openOciLayout } from '../packages/oci/src/index.ts';
import { header, LayoutMaker, makeTar } from '../packages/oci/src/testing/index.ts';
import { list } from '../packages/rootfs/src/flatten-fixtures.ts';
import { createScratch, flattenImage, planErofs } from '../packages/rootfs/src/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { decant, failure, type DecantOptions } from './support/decant.ts';
import { loadedTree, removeLoaded } from './support/docker-load.ts';
import { differencesFromDocker } from './support/docker-verdicts.ts';
import { hostileCases, type HostileCase, type Verdict } from './support/hostile-cases.ts';
import { layoutOfTars } from './support/layout-of-tars.ts';
import { have, isRoot, output, tool } from './support/programs.ts';
import { listTree } from './support/tree-listing.ts';

/** The versions whose verdicts the cases hold; of others only the trees are compared. */
const MEASURED = { umoci: /version 0\.4\./, buildah: /version 1\.28\./, docker: /^28\.2\./ };
/** Images that docker loads at a time: it mostly waits for the disk. */
const LOADS_AT_ONCE = 4;
/** Far more than a garbage collector is late with on a busy machine, and far less than what the smaller limit lets through. */
const MOST_EXTRA_MB = 200;
const VICTIM = 'not to be touched\n';
// In lower case: buildah makes an image name of the path of a layout.
const OUTSIDE = join(tmpdir(), `decant-e2e-outside-${process.pid}`);
const LAYOUTS = join(tmpdir(), `decant-e2e-cases-${process.pid}`);
const CASES = hostileCases(OUTSIDE);

describe.skipIf(!isRoot || !have('getfattr'))('hostile and awkward images', () => {
  let folder: TemporaryDirectory;
  let options: DecantOptions;
  let before: string[];

  beforeAll(async () => {
    folder = await temporaryDirectory('decant-e2e-');
    options = { home: join(folder.path, 'home') };
    await rm(OUTSIDE, { recursive: true, force: true });
    await mkdir(OUTSIDE);
    await writeFile(join(OUTSIDE, 'victim'), VICTIM, { mode: 0o600 });
    before = await listTree(OUTSIDE);
    for (const [index, each] of CASES.entries()) {
      const maker = new LayoutMaker(layoutOf(index));
      const layers = each.layers.map((layer) => (layer instanceof Uint8Array ? layer : makeTar(layer)));
      await maker.image({ layers, tag: 'case' });
      await maker.finish();
    }
  });
  afterAll(async () => {
    await rm(OUTSIDE, { recursive: true, force: true });
    await rm(LAYOUTS, { recursive: true, force: true });
    await folder?.[Symbol.asyncDispose]();
  });

  const layoutOf = (index: number) => join(LAYOUTS, `case-${index}`);
  const imageOf = (index: number) => join(folder.path, `case-${index}.erofs`);

  /** Flattens one and writes its image; gives back what is in it, or the code of the refusal. */
  async function ours(index: number): Promise<Record<string, string> | string> {
    await using scratch = await createScratch(folder.path);
    try {
      await using image = await openOciLayout(layoutOf(index), { tag: 'case' });
      const { root } = await flattenImage(image, { scratch });
      const plan = await planErofs(root, { hash: await loadNodeHashProvider() });
      const parts: Uint8Array[] = [];
      for await (const piece of plan.pieces()) {
        if (piece.type === 'data') parts.push(piece.bytes.slice());
        if (piece.type === 'zeros') parts.push(new Uint8Array(piece.lengthBytes));
      }
      await writeFile(imageOf(index), Buffer.concat(parts));
      return list(root);
    } catch (error) {
      if (!isDecantError(error)) throw error;
      // A refusal names the entry, or the byte where the archive is broken.
      expect(error.details).toSatisfy((details: Record<string, unknown>) => 'entry' in details || 'offset' in details);
      if (error.code === 'LIMIT_EXCEEDED') expect(error.details).toHaveProperty('limitName');
      return error.code;
    }
  }

  test.each(CASES.map((each, index) => ({ ...each, index })))(
    '$number $name',
    async ({ index, expected }) => {
      expect(await ours(index)).toEqual(expected);
      expect(await listTree(OUTSIDE)).toEqual(before);
      expect(await readFile(join(OUTSIDE, 'victim'), 'utf8')).toBe(VICTIM);
    },
    // Finds what does not end; a disk that is busy makes all of it slow.
    120_000,
  );

  test.skipIf(!have('umoci'))(
    '[backend:umoci] umoci accepts and refuses as the cases say, and makes the same trees',
    async () => {
      const measured = MEASURED.umoci.test(await output('umoci', ['--version']));
      let compared = 0;
      for (const [index, each] of CASES.entries()) {
        if (each.umoci === undefined) continue;
        const bundle = join(folder.path, 'bundle');
        const verdict = await verdictOf(() => tool('umoci', ['unpack', '--image', `${layoutOf(index)}:case`, bundle]));
        if (measured) expect({ name: each.name, verdict }).toEqual({ name: each.name, verdict: each.umoci });
        if (verdict === 'ok' && typeof each.expected !== 'string') {
          expect(await mountedTree(index), each.name).toEqual(
            withoutFolderTimes(await listTree(join(bundle, 'rootfs'))),
          );
          compared++;
        }
        await rm(bundle, { recursive: true, force: true });
      }
      expect(compared).toBeGreaterThan(25);
      expect(await listTree(OUTSIDE)).toEqual(before);
    },
  );

  test.skipIf(!have('buildah'))('[backend:buildah] buildah accepts and refuses as the cases say', async () => {
    const measured = MEASURED.buildah.test(await output('buildah', ['--version']));
    const store = [
      ...['--root', join(folder.path, 'store'), '--runroot', join(folder.path, 'run')],
      ...['--storage-driver', 'overlay'],
    ];
    const verdicts: Record<string, Verdict> = {};
    const expected: Record<string, Verdict> = {};
    try {
      for (const [index, each] of CASES.entries()) {
        if (each.buildah === undefined) continue;
        expected[each.name] = each.buildah;
        const verdict = await verdictOf(() =>
          tool('buildah', [...store, 'pull', '--quiet', `oci:${layoutOf(index)}:case`]),
        );
        verdicts[each.name] = verdict;
      }
      if (measured) expect(verdicts).toEqual(expected);
    } finally {
      await tool('buildah', [...store, 'rmi', '--all', '--force']);
    }
    expect(await listTree(OUTSIDE)).toEqual(before);
  });

  test.skipIf(inject('dockerHost') === null || !have('docker'))(
    '[backend:docker] docker loads and refuses the same, with the same trees, but for the differences that have a reason',
    async () => {
      const version = await output('docker', ['version', '--format', '{{.Server.Version}}']);
      const differences = differencesFromDocker(OUTSIDE);
      expect(Object.keys(differences).filter((name) => CASES.every((each) => each.name !== name))).toEqual([]);
      const nameOf = (index: number) => `decant-hostile-${process.pid}-${index}`;
      const found: Record<string, unknown> = {};
      const expected: Record<string, unknown> = {};
      const load = async (queue: Iterator<[number, HostileCase]>) => {
        for (let next = queue.next(); next.done !== true; next = queue.next()) {
          const [index, { name, layers, expected: ours }] = next.value;
          const tars = layers.map((layer) => (layer instanceof Uint8Array ? layer : makeTar(layer)));
          found[name] = await loadedTree(tars, { name: nameOf(index), folder: folder.path });
          const same = typeof ours === 'string' ? 'reject' : ours;
          expected[name] = differences[name]?.docker ?? same;
          if (name in differences) expect(differences[name]?.docker, `${name} is no difference`).not.toEqual(same);
        }
      };
      const queue = CASES.entries();
      const loads = await Promise.allSettled(Array.from({ length: LOADS_AT_ONCE }, () => load(queue)));
      await removeLoaded(CASES.map((_, index) => nameOf(index)));
      for (const each of loads) if (each.status === 'rejected') throw each.reason;
      if (MEASURED.docker.test(version)) expect(found).toEqual(expected);
      expect(Object.values(found).filter((tree) => tree !== 'reject').length).toBeGreaterThan(25);
      expect(await listTree(OUTSIDE)).toEqual(before);
    },
  );

  /** Directories that no entry describes have the time of unpacking at umoci, and a fixed one here. */
  function withoutFolderTimes(lines: readonly string[]): string[] {
    return lines.map((line) => (/ mode=4\d{4} /.test(line) ? line.replace(/ mtime=-?\d+/, '') : line));
  }

  async function mountedTree(index: number): Promise<string[]> {
    const target = join(folder.path, 'mounted');
    await mkdir(target, { recursive: true });
    await tool('mount', ['-t', 'erofs', '-o', 'ro,loop', imageOf(index), target]);
    try {
      return withoutFolderTimes(await listTree(target));
    } finally {
      await tool('umount', [target]);
    }
  }

  test('101 diffid-mismatch, 109 mediatype-mismatch, 113 layer-mediatype-unknown', async () => {
    const broken: [string, RegExp, Parameters<LayoutMaker['image']>[0]][] = [
      [
        'diffid',
        /^OCI_DIGEST_MISMATCH$/,
        {
          layers: [makeTar([{ path: 'a', data: 'a' }])],
          patchConfig: (config) => {
            config['rootfs'].diff_ids = [`sha256:${'0'.repeat(64)}`];
          },
        },
      ],
      [
        'mediatype',
        /^OCI_(INVALID|UNSUPPORTED)$/,
        {
          layers: [makeTar([{ path: 'a', data: 'a' }])],
          patchManifest: (manifest) => {
            manifest['mediaType'] = 'application/vnd.oci.image.index.v1+json';
          },
        },
      ],
      [
        'unknown',
        /^OCI_(INVALID|UNSUPPORTED)$/,
        {
          layers: [makeTar([{ path: 'a', data: 'a' }])],
          patchManifest: (manifest) => {
            manifest['layers'][0].mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted';
          },
        },
      ],
    ];
    for (const [name, code, spec] of broken) {
      const maker = new LayoutMaker(join(folder.path, name));
      await maker.image({ ...spec, tag: 'x' });
      await maker.finish();
      const refused = await failure(
        ['image', 'import', `oci:${maker.directory}:x`, '--streaming', '-n', 'bad'],
        options,
      );
      expect(refused.code, `${name}: ${refused.message}`).toMatch(code);
    }
  });

  test('103 gzip-bomb: 10 GiB of zeros cost little memory, and the error names the limit', async () => {
    const zeros = Buffer.alloc(64 * 2 ** 20);
    const head = header({ path: 'zeros' }, 10 * 2 ** 30);
    const bombs: [string, 'gzip' | 'zstd', (bytes: Uint8Array) => Buffer][] = [
      ['gzip', 'gzip', (bytes) => gzipSync(bytes, { level: 9 })],
      ['zstd', 'zstd', (bytes) => zstdCompressSync(bytes)],
    ];
    const little = join(folder.path, 'little.tar');
    await writeFile(little, makeTar([{ path: 'a', data: 'a' }]));
    await layoutOfTars(join(folder.path, 'little'), [little]);
    const usual = await peakMb([
      'image',
      'import',
      `oci:${join(folder.path, 'little')}`,
      '--streaming',
      '-n',
      'little',
    ]);
    expect(usual.code).toBeUndefined();
    for (const [name, form, compress] of bombs) {
      // Both formats allow members to follow each other, so that 10 GiB need not be compressed here.
      const member = compress(zeros);
      const stored = Buffer.concat([compress(head), ...Array.from({ length: 160 }, () => member)]);
      const maker = new LayoutMaker(join(folder.path, `bomb-${name}`));
      const digest = await maker.blob(stored);
      await maker.image({
        layers: [makeTar([])],
        tag: 'x',
        patchManifest: (manifest) => {
          const mediaType = `application/vnd.oci.image.layer.v1.tar+${form}`;
          manifest['layers'] = [{ mediaType, digest, size: stored.length }];
        },
      });
      await maker.finish();
      for (const limit of [[], ['--limit', `layerBytes=${300 * 2 ** 20}`]]) {
        const source = `oci:${maker.directory}:x`;
        const args = ['image', 'import', source, '--streaming', '-n', 'bomb', ...limit];
        let bomb = await peakMb(args);
        // On a busy machine V8 is late with giving memory back.
        if (bomb.peakMb - usual.peakMb > MOST_EXTRA_MB) bomb = await peakMb(args);
        expect(bomb.code, bomb.message).toBe('LIMIT_EXCEEDED');
        expect(bomb.message).toMatch(/unpacks? to more than/);
        expect(bomb.peakMb - usual.peakMb, name).toBeLessThan(MOST_EXTRA_MB);
      }
    }
    expect(await readdir(join(options.home, 'scratch'))).toEqual([]);
  });

  /** Peak resident memory of a command, in 10^6 bytes, and how it failed. */
  async function peakMb(args: readonly string[]) {
    const file = join(folder.path, 'peak');
    const through = ['/usr/bin/time', '--quiet', '-f', '%M', '-o', file];
    const { status, stderr } = await decant([...args, '--json'], { ...options, through });
    const last = stderr.trimEnd().split('\n').at(-1) ?? '';
    const { error } = (status === 0 ? {} : JSON.parse(last)) as { error?: { code: string; message: string } };
    return { peakMb: (Number(await readFile(file, 'utf8')) * 1024) / 1e6, ...error };
  }
});

/** A tool refuses with its exit status; one that is missing or takes too long says nothing about the image. */
async function verdictOf(action: () => Promise<unknown>): Promise<Verdict> {
  try {
    await action();
    return 'ok';
  } catch (error) {
    if (isDecantError(error, 'PROCESS_FAILED') && typeof error.details['exitCode'] === 'number') return 'reject';
    throw error;
  }
}
