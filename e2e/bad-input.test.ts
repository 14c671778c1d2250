import { copyFile, cp, mkdir, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import {
  busyboxEntries,
  makeTar,
  temporaryDirectory,
  type TarEntry,
  type TemporaryDirectory,
} from '../packages/testkit/src/index.ts';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { decant, decantJson, failure, succeed, type DecantOptions } from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { layoutOfTars } from './support/layout-of-tars.ts';
import { have, isRoot, tool } from './support/programs.ts';

describe.skipIf(!isRoot || !have('busybox', 'bwrap', 'fsck.erofs', 'skopeo'))('[backend:erofs-utils] bad input', () => {
  let folder: TemporaryDirectory;
  let options: DecantOptions;
  let good: string;

  beforeAll(async () => {
    folder = await temporaryDirectory('decant-e2e-');
    options = { home: join(folder.path, 'home') };
    good = await smallImage(folder.path, 'good', { noiseBytes: 2 ** 20 });
    await succeed(['image', 'import', good, '--streaming', '-n', 'good'], options);
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  /** A refusal has a code, a sentence and a status; after each test nothing of it is to be seen. */
  async function refused(args: readonly string[], status: number, code: RegExp): Promise<string> {
    const result = await failure(args, options);
    expect(result.code, result.message).toMatch(code);
    expect(result.status, result.message).toBe(status);
    expect(result.message).toMatch(/^["/A-Z].*\S$/s);
    return result.message;
  }
  afterEach(async () => {
    const { images } = await decantJson<{ images: { name: string }[] }>(['image', 'ls'], options);
    expect(images.map(({ name }) => name)).toEqual(['good']);
    expect(await readdir(join(options.home, 'scratch'))).toEqual([]);
  });
  const importing = (source: string) => ['image', 'import', source, '--streaming', '-n', 'bad'];

  test('names, flags and commands that are none: status 2', async () => {
    for (const name of ['UPPER', '../up', 'a:b:c', 'n'.repeat(300), '']) {
      await refused(['image', 'import', good, `--name=${name}`], 2, /^NAME_INVALID$/);
    }
    await refused(['image', 'import', 'nonsense:x'], 2, /^USAGE$/);
    await refused(['image', 'import', 'oci:'], 2, /^USAGE$/);
    await refused(['image', 'import', good, '--disk-mb', '-3'], 2, /^USAGE$/);
    await refused(['image', 'export', 'good'], 2, /^USAGE$/);
    await refused(['image', 'export', 'good', '--raw', folder.path], 2, /^USAGE$/);
    for (const args of [
      ['nonsense'],
      ['image', 'nonsense'],
      ['image', 'ls', '--nonsense'],
      ['image', 'import'],
      ['image', 'serve', 'good'],
      ['run'],
    ]) {
      const { status, stdout, stderr } = await decant(args, options);
      expect({ args, status, stdout }).toEqual({ args, status: 2, stdout: '' });
      expect(stderr).toContain('error:');
    }
  });

  test('images that are not there: status 4, and what to do', async () => {
    for (const args of [
      ['inspect'],
      ['verify'],
      ['history'],
      ['rm'],
      ['serve', '--socket', join(folder.path, 's')],
      ['export', '--raw', join(folder.path, 'r')],
    ]) {
      const { status, code } = await failure(['image', ...args, 'unknown'], options);
      expect({ args, status, code }).toEqual({ args, status: 4, code: 'NOT_FOUND' });
    }
    const { status, hint } = await failure(['run', 'unknown'], options);
    expect({ status, hint }).toEqual({ status: 4, hint: expect.stringContaining('image ls') as string });
    await refused(['image', 'tag', `cas-v1:${'0'.repeat(64)}`, 'x'], 4, /^NOT_FOUND$/);
  });

  test('archives and layouts that are missing, broken, cut or not what their digests say', async () => {
    const at = (name: string) => join(folder.path, name);
    await refused(importing(`oci:${at('nowhere')}`), 2, /^OCI_SOURCE_INVALID$/);
    await refused(importing(`docker-archive:${at('nowhere')}`), 2, /^OCI_SOURCE_INVALID$/);
    await refused(importing(`raw:${at('nowhere')}`), 2, /^OCI_SOURCE_INVALID$/);
    await refused(importing(`${good}:no-such-tag`), 2, /^OCI_SOURCE_INVALID$/);
    await writeFile(at('noise.tar'), Buffer.alloc(70_000, 'noise'));
    await refused(importing(`docker-archive:${at('noise.tar')}`), 2, /^OCI_SOURCE_INVALID$/);
    await tool('skopeo', ['copy', '--quiet', `${good}:latest`, `docker-archive:${at('saved.tar')}:good:1`]);
    const { size } = await stat(at('saved.tar'));
    for (const part of [0.3, 0.9]) {
      await copyFile(at('saved.tar'), at('cut.tar'));
      await truncate(at('cut.tar'), Math.floor(size * part));
      const result = await failure(importing(`docker-archive:${at('cut.tar')}`), options);
      expect([2, 6], result.message).toContain(result.status);
    }
    // A byte in the middle of a layer, with and without a size to match.
    for (const change of ['flip', 'append'] as const) {
      await cp(good.slice(4), at(change), { recursive: true });
      const blobs = join(at(change), 'blobs/sha256');
      let largest = '';
      for (const name of await readdir(blobs)) {
        if (largest === '' || (await stat(join(blobs, name))).size > (await stat(join(blobs, largest))).size)
          largest = name;
      }
      const bytes = await readFile(join(blobs, largest));
      if (change === 'flip') bytes[bytes.length - 1_000]! ^= 1;
      await writeFile(join(blobs, largest), change === 'flip' ? bytes : Buffer.concat([bytes, Buffer.from('x')]));
      const message = await refused(importing(`oci:${at(change)}`), 6, /^(OCI_DIGEST_MISMATCH|LAYER_INVALID)$/);
      expect(message).not.toBe('');
    }
  });

  test('hostile layers: nothing is written outside, and the refusal names the entry', async () => {
    const victim = join(folder.path, 'victim');
    const up = `${'../'.repeat(20)}${victim.slice(1)}`;
    const cases: [string, TarEntry[]][] = [
      ['dots', [{ path: up, data: 'escaped' }]],
      ['absolute', [{ path: 'x', type: 'hardlink', linkTarget: '/etc/shadow' }]],
      ['hardlink-up', [{ path: 'x', type: 'hardlink', linkTarget: '../../../../etc/shadow' }]],
      [
        'through-link',
        [
          { path: 'd', type: 'symlink', linkTarget: folder.path },
          { path: 'd/victim', data: 'escaped' },
        ],
      ],
    ];
    for (const [name, entries] of cases) {
      const tar = join(folder.path, `${name}.tar`);
      await writeFile(tar, makeTar([...(await busyboxEntries()), ...entries]));
      await layoutOfTars(join(folder.path, name), [tar]);
      const result = await decant([...importing(`oci:${join(folder.path, name)}`), '--json'], options);
      // A link inside the image is followed inside the image; the others have no meaning there.
      if (name !== 'through-link') {
        expect(result.status, name).toBe(6);
        expect(result.stderr, name).toContain('LAYER_INVALID');
      } else {
        expect(result.status).toBe(0);
        await succeed(['image', 'rm', 'bad'], options);
      }
      await expect(stat(victim)).rejects.toThrow('ENOENT');
    }
  });

  test('a full disk: status 7, a hint, and what was there is still whole', async () => {
    const small = join(folder.path, 'small');
    await mkdir(small);
    await tool('mount', ['-t', 'tmpfs', '-o', 'size=30m', 'none', small]);
    try {
      const home = { home: join(small, 'home') };
      await succeed(['image', 'import', good, '--streaming', '-n', 'fits'], home);
      const large = await smallImage(folder.path, 'large', { noiseBytes: 40 * 2 ** 20 });
      for (const format of [['--streaming'], []]) {
        const full = await failure(['image', 'import', large, ...format, '-n', 'large'], home);
        expect(full).toMatchObject({ status: 7, code: 'DISK_FULL', hint: expect.any(String) as string });
      }
      const { images } = await decantJson<{ images: { name: string }[] }>(['image', 'ls'], home);
      expect(images.map(({ name }) => name)).toEqual(['fits']);
      await succeed(['image', 'verify', 'fits'], home);
      expect(await readdir(join(small, 'home/scratch'))).toEqual([]);
      // The scratch files elsewhere: now it is the objects that do not fit.
      const elsewhere = { ...home, env: { TMPDIR: folder.path } };
      const full = await failure(['image', 'import', large, '--streaming', '-n', 'large'], elsewhere);
      expect(full).toMatchObject({ status: 7, code: 'DISK_FULL' });
      await succeed(['image', 'verify', 'fits'], home);
      await succeed(['image', 'tag', 'fits', 'again'], home);
    } finally {
      await tool('umount', ['--lazy', small]);
    }
  });

  test('a home that cannot be used: status 2', async () => {
    await writeFile(join(folder.path, 'file'), '');
    const result = await failure(['image', 'ls'], { home: join(folder.path, 'file', 'home') });
    expect(result).toMatchObject({ status: 2, code: 'CONFIG_INVALID', hint: expect.any(String) as string });
  });
});
