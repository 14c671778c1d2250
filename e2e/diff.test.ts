import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { debianBase, makeTar, temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { decant, decantJson, failure, ROOT, succeed, type DecantOptions, type MadeImage } from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { layoutOfTars } from './support/layout-of-tars.ts';
import { have, isRoot, tool } from './support/programs.ts';
import { listTree } from './support/tree-listing.ts';

interface Change {
  readonly path: string;
  readonly pathBase64?: string;
  readonly change: 'added' | 'removed' | 'changed';
  readonly facts: readonly string[];
}
interface Diff {
  readonly before: { readonly ref: string; readonly id: string };
  readonly after: { readonly ref: string; readonly id: string };
  readonly identical: boolean;
  readonly changes: readonly Change[];
  readonly counts: Readonly<Record<Change['change'], number>>;
  readonly config: readonly string[];
  readonly cost: {
    readonly chunks: { readonly total: number; readonly new: number; readonly shared: number };
    readonly bytes: Readonly<Record<'total' | 'new' | 'totalStored' | 'newStored', number>>;
  };
  readonly readBytes: number;
}

const available = isRoot && have('mmdebstrap', 'getfattr', 'busybox');

describe.skipIf(!available)('decant image diff', () => {
  let folder: TemporaryDirectory;
  let options: DecantOptions;
  let first: MadeImage;
  let second: MadeImage;

  beforeAll(async () => {
    const base = await debianBase({ cacheFolder: join(ROOT, '.cache') });
    folder = await temporaryDirectory('decant-e2e-');
    options = { home: join(folder.path, 'home') };
    const change = join(folder.path, 'change.tar');
    const entries = [
      { path: 'srv/new/', type: 'directory' as const },
      { path: 'srv/new/file', data: 'new' },
      { path: 'etc/.wh.issue', data: '' },
      { path: 'usr/share/doc/.wh.libc6', data: '' },
      { path: 'etc/hostname', data: 'changed\n' },
      { path: 'etc/motd', data: 'other mode\n', mode: 0o600 },
      { path: 'usr/share/common-licenses/GPL-3', data: 'no longer the licence' },
      { path: 'usr/bin/tac', type: 'symlink' as const, linkTarget: 'cat' },
    ];
    await writeFile(change, makeTar(entries));
    await layoutOfTars(join(folder.path, 'one'), [base], { Cmd: ['/bin/sh'] });
    await layoutOfTars(join(folder.path, 'two'), [base, change], { Cmd: ['/bin/bash'], Env: ['A=b'] });
    const importing = (name: string) =>
      decantJson<MadeImage>(
        ['image', 'import', `oci:${join(folder.path, name)}`, '--streaming', '-n', `box:${name}`],
        options,
      );
    first = await importing('one');
    second = await importing('two');
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  const diff = (...args: string[]) => decantJson<Diff>(['image', 'diff', ...args], options);

  test('[backend:erofs-kernel] tells exactly the paths that differ between the two when mounted', async () => {
    const found = await diff('box:one', 'box:two');
    const [before, after] = [await mountedLines('box:one'), await mountedLines('box:two')];
    const expected: Record<string, string> = {};
    for (const path of new Set([...before.keys(), ...after.keys()])) {
      if (before.get(path) === after.get(path)) continue;
      expected[path] = !before.has(path) ? 'added' : after.has(path) ? 'changed' : 'removed';
    }
    expect(Object.fromEntries(found.changes.map(({ path, change }) => [path, change]))).toEqual(expected);
    const factsOf = (path: string) => found.changes.find((change) => change.path === path)?.facts;
    expect(factsOf('/etc/hostname')).toContain('content');
    expect(factsOf('/usr/share/common-licenses/GPL-3')).toContain('content');
    expect(factsOf('/usr/bin/tac')).toContain('type');
    expect(expected).toMatchObject({
      '/srv/new/file': 'added',
      '/etc/issue': 'removed',
      '/etc/motd': expect.anything() as string,
    });
    expect(Object.keys(expected).filter((path) => path.startsWith('/usr/share/doc/libc6')).length).toBeGreaterThan(2);
    const { added, removed, changed } = found.counts;
    expect(added + removed + changed).toBe(found.changes.length);
    expect(found.config).toEqual(['Cmd', 'Env']);
    expect(found.identical).toBe(false);
  });

  test('costs what the import of the second was told to cost, and reads little to find out', async () => {
    const { cost, readBytes } = await diff(first.image.id, second.image.id);
    expect(cost.chunks).toEqual({
      total: second.chunks!.total,
      new: second.chunks!.new,
      shared: second.chunks!.reused,
    });
    expect(cost.bytes).toMatchObject({ new: second.bytes.new, newStored: second.bytes.stored });
    expect(cost.bytes.new).toBeLessThan(cost.bytes.total / 10);
    expect(readBytes).toBeLessThan(cost.bytes.totalStored / 4);
  });

  test('the other way round it is the reverse', async () => {
    const [there, back] = [await diff('box:one', 'box:two'), await diff('box:two', 'box:one')];
    expect(back.counts).toEqual({ ...there.counts, added: there.counts.removed, removed: there.counts.added });
    expect(back.changes.map(({ path }) => path)).toEqual(there.changes.map(({ path }) => path));
  });

  test('for people, and with an exit status on request', async () => {
    const shown = await succeed(['image', 'diff', 'box:one', 'box:two'], options);
    const lines = shown.stdout.trimEnd().split('\n');
    expect(lines.some((line) => /^- \/etc\/issue  \d+ B$/.test(line))).toBe(true);
    expect(lines).toContain('~ configuration: Cmd, Env');
    expect(lines.at(-2)).toMatch(/^\d+ added, \d+ removed, \d+ changed$/);
    expect(lines.at(-1)).toMatch(/^box:two has \d+ of \d+ chunks that box:one has not: .* stored .* of /);
    expect((await decant(['image', 'diff', '--exit-code', 'box:one', 'box:two'], options)).status).toBe(1);
    const same = await decant(['image', 'diff', '--exit-code', 'box:one', first.image.id], options);
    expect(same).toMatchObject({ status: 0, stdout: expect.stringMatching(/^the two are the same\n/) as string });
  });

  test('two builds at other times differ in times alone, and SOURCE_DATE_EPOCH takes these away', async () => {
    const folders: string[] = [];
    for (const mtimeSeconds of [1_600_000_000, 1_700_000_000]) {
      const tar = join(folder.path, `${mtimeSeconds}.tar`);
      await writeFile(
        tar,
        makeTar([
          { path: 'a', data: 'a', mtimeSeconds },
          { path: 'b', data: 'b', mtimeSeconds },
        ]),
      );
      await layoutOfTars(join(folder.path, `at-${mtimeSeconds}`), [tar]);
      folders.push(`oci:${join(folder.path, `at-${mtimeSeconds}`)}`);
    }
    const importing = (source: string, name: string, extra: string[], env = {}) =>
      decantJson<MadeImage>(['image', 'import', source, '--streaming', '-n', name, ...extra], { ...options, env });
    await importing(folders[0]!, 'times:one', []);
    await importing(folders[1]!, 'times:two', []);
    const found = await diff('times:one', 'times:two');
    expect(found.changes.map(({ path, facts }) => [path, facts])).toEqual([
      ['/a', ['time']],
      ['/b', ['time']],
    ]);
    const ignoring = await decant(
      ['image', 'diff', '--ignore-times', '--exit-code', 'times:one', 'times:two'],
      options,
    );
    expect(ignoring).toMatchObject({ status: 0, stdout: expect.stringMatching(/^the two are the same\n/) as string });
    const clamped = await importing(folders[0]!, 'times:three', ['--source-date-epoch', '1500000000']);
    const again = await importing(folders[1]!, 'times:four', [], { SOURCE_DATE_EPOCH: '1500000000' });
    expect(again.image.id).toBe(clamped.image.id);
    const bad = await failure(['image', 'import', folders[0]!, '-n', 'times:bad'], {
      ...options,
      env: { SOURCE_DATE_EPOCH: 'today' },
    });
    expect(bad).toMatchObject({ status: 2, code: 'CONFIG_INVALID' });
  });

  test('[backend:e2fsprogs] what cannot be compared: ext4 images, unknown names; and ext4 options without sense', async () => {
    const small = await smallImage(folder.path, 'small');
    await succeed(['image', 'import', small, '-n', 'whole', '--label', 'my root', '--free-mb', '16'], options);
    const refused = await failure(['image', 'diff', 'box:one', 'whole'], options);
    expect(refused).toMatchObject({ status: 2, code: 'USAGE', hint: expect.stringContaining('--streaming') as string });
    expect((await failure(['image', 'diff', 'box:one', 'nowhere'], options)).status).toBe(4);
    const raw = join(folder.path, 'whole.raw');
    await succeed(['image', 'export', 'whole', '--raw', raw], options);
    const facts = (await tool('dumpe2fs', ['-h', raw])).stdout.toString();
    expect(facts).toContain('my root');
    expect(Number(/^Free blocks: +(\d+)$/m.exec(facts)![1]) * 4096).toBeGreaterThanOrEqual(16 * 2 ** 20);
    for (const args of [
      ['--label', 'longer than sixteen'],
      ['--uuid', 'random'],
      ['--free-mb', '-1'],
      ['--free-mb', '5', '--disk-mb', '64'],
      ['--streaming', '--label', 'x'],
      ['--source-date-epoch', 'now'],
    ]) {
      // The source is not there: what is wrong with the options is told first.
      const { status, code } = await failure(['image', 'import', 'oci:/nowhere', '-n', 'bad', ...args], options);
      expect({ args, status, code }).toEqual({ args, status: 2, code: 'USAGE' });
    }
  });

  /** What a mount of the image shows, by path. */
  async function mountedLines(ref: string): Promise<Map<string, string>> {
    const raw = join(folder.path, `${ref.replace(':', '-')}.raw`);
    const target = join(folder.path, `${ref.replace(':', '-')}.mounted`);
    await succeed(['image', 'export', ref, '--sparse', raw], options);
    await mkdir(target);
    await tool('mount', ['-t', 'erofs', '-o', 'ro,loop', raw, target]);
    try {
      const lines = await listTree(target);
      return new Map(
        lines.map((line) => {
          const at = line.indexOf(' mode=');
          return [line.slice(0, at) === '.' ? '/' : `/${line.slice(0, at)}`, line.slice(at)];
        }),
      );
    } finally {
      await tool('umount', [target]);
    }
  }
});
