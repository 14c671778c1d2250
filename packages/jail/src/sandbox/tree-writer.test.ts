import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { CopyCount, readTree } from './tree-reader.ts';
import { writeTree } from './tree-writer.ts';

const available = process.platform === 'linux';
const LIMITS = { entries: 100, bytes: 10_000 };

describe.skipIf(!available)('a tree that comes out', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'jail-tree-'));
    await mkdir(join(folder, 'outside'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const hex = (text: string) => Buffer.from(text).toString('hex');
  const dir = (name: string) => `dir 755 0 ${hex(name)}\n`;
  const file = (name: string, text: string) =>
    `file 644 0 ${hex(name)}\ndata 0 ${text.length}\n${text}size ${text.length}\n`;
  const link = (name: string, target: string) => `link ${hex(name)} ${hex(target)}\n`;

  async function write(text: string | Buffer, pieces = 7, limits = LIMITS): Promise<void> {
    const bytes = Buffer.from(text as string);
    async function* cut() {
      for (let at = 0; at < bytes.length; at += pieces) yield bytes.subarray(at, at + pieces);
    }
    await writeTree(cut(), join(folder, 'out'), new CopyCount(limits), undefined);
  }

  test('is written as it is described', async () => {
    await write(`${dir('.') + file('a', 'text') + dir('d') + link('l', '/etc/shadow')}up\nup\ndone\n`);
    expect(await readFile(join(folder, 'out/a'), 'utf8')).toBe('text');
    expect(await readlink(join(folder, 'out/d/l'))).toBe('/etc/shadow');
    expect((await stat(join(folder, 'out/d'))).mode & 0o7777).toBe(0o755);
  });

  test.each([
    ['a name with a slash', dir('.') + file('../outside/x', 'x')],
    ['an absolute name', dir('.') + file('/tmp/x', 'x')],
    ['no name', `${dir('.')}file 644 0 \n`],
    ['the directory itself', dir('.') + file('.', 'x')],
    ['the directory above', dir('.') + dir('..') + file('x', 'x')],
    ['a NUL', dir('.') + file('a\0b', 'x')],
    ['below a link', dir('.') + link('l', '../outside') + dir('l') + file('x', 'x')],
    ['over a link', dir('.') + link('l', '../outside/x') + file('l', 'x')],
    ['the same name twice', dir('.') + file('a', 'x') + file('a', 'y')],
    ['a second tree', `${dir('.')}up\n${file('b', 'x')}`],
    ['up and up', `${dir('.')}up\nup\n${file('x', 'x')}`],
    ['an end too early', dir('.')],
    ['an end within data', `${dir('.')}file 644 0 ${hex('a')}\ndata 0 100\nxx`],
    ['a negative place', `${dir('.')}file 644 0 ${hex('a')}\ndata -1 1\nxsize 1\n`],
    ['an endless file', `${dir('.')}file 644 0 ${hex('a')}\nsize 99999999999999\n`],
    ['an endless line', `${dir('.')}${'x'.repeat(100_000)}`],
    ['a path that is too long', Array.from({ length: 20 }, () => dir('n'.repeat(200))).join('')],
    ['no such kind', `${dir('.')}device 644 0 ${hex('a')}\n`],
    ['more bytes than may be', dir('.') + file('a', 'x'.repeat(10_001))],
    [
      'more entries than may be',
      dir('.') +
        Array.from({ length: 101 }, (_, i) => file(`${i}`, ''))
          .join('')
          .replaceAll('data 0 0\n', ''),
    ],
  ])('%s is refused, and nothing stays', async (_, text) => {
    await expect(write(`${text}done\n`, 4096)).rejects.toMatchObject({ name: 'DecantError' });
    await expect(lstat(join(folder, 'out'))).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await readdir(join(folder, 'outside'))).toEqual([]);
  });

  test('what is there stays as it is', async () => {
    await symlink(join(folder, 'outside'), join(folder, 'out'));
    await expect(write(`${dir('.') + file('a', 'x')}up\ndone\n`)).rejects.toMatchObject({ code: 'USAGE' });
    expect(await readdir(join(folder, 'outside'))).toEqual([]);
    expect((await lstat(join(folder, 'out'))).isSymbolicLink()).toBe(true);
  });

  test('setuid bits are dropped, and holes take no space', async () => {
    await write(`file 6755 5 ${hex('a')}\ndata 5000000 2\nhisize 9000000000\ndone\n`);
    const info = await stat(join(folder, 'out'));
    expect([info.mode & 0o7777, info.size, info.mtimeMs]).toEqual([0o755, 9_000_000_000, 5000]);
    expect(info.blocks * 512).toBeLessThan(100_000);
  });

  test('any bytes: no path but the target is touched', async () => {
    const words = fc.constantFrom(
      'dir',
      'file',
      'link',
      'up',
      'data',
      'size',
      'done',
      'fail',
      '755',
      '0',
      '3',
      hex('a'),
      hex('..'),
      hex('a/b'),
      '-',
      'x',
      '\n',
      '\n',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(words, { maxLength: 40 }), async (parts) => {
        await write(parts.join(' ').replaceAll(' \n ', '\n'), 16).catch(() => undefined);
        await rm(join(folder, 'out'), { recursive: true, force: true });
        expect(await readdir(folder)).toEqual(['outside']);
        expect(await readdir(join(folder, 'outside'))).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });

  test('what the reader gives, the writer takes', async () => {
    await mkdir(join(folder, 'in/deep'), { recursive: true });
    await writeFile(join(folder, 'in/deep/file'), 'content');
    await symlink('nowhere', join(folder, 'in/link'));
    const count = () => new CopyCount(LIMITS);
    await writeTree(readTree(join(folder, 'in'), count(), undefined), join(folder, 'out'), count(), undefined);
    expect(await readFile(join(folder, 'out/deep/file'), 'utf8')).toBe('content');
    expect(await readlink(join(folder, 'out/link'))).toBe('nowhere');
  });
});
