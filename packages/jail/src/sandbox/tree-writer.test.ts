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

  /** What lies in the tree, which is whole but for that. */
  const tree = (text: string) => `${dir('.')}${text}up\n`;
  const many = Array.from({ length: 101 }, (_, i) => file(`${i}`, '').replaceAll('data 0 0\n', '')).join('');
  const deep = (levels: number, name: string) => dir(name).repeat(levels) + 'up\n'.repeat(levels);

  test.each([
    ['a name with a slash', 'JAIL_FAILED', tree(file('../outside/x', 'x'))],
    ['an absolute name', 'JAIL_FAILED', tree(file('/tmp/x', 'x'))],
    ['no name', 'JAIL_FAILED', tree('file 644 0 \nsize 0\n')],
    ['the directory itself', 'JAIL_FAILED', tree(file('.', 'x'))],
    ['the directory above', 'JAIL_FAILED', tree(dir('..') + file('x', 'x') + 'up\n')],
    ['a link for the directory above', 'JAIL_FAILED', tree(link('..', 'x'))],
    ['a NUL', 'JAIL_FAILED', tree(file('a\0b', 'x'))],
    ['a name that is too long', 'JAIL_FAILED', tree(file('n'.repeat(256), 'x'))],
    ['below a link', 'USAGE', tree(link('l', '../outside') + dir('l') + file('x', 'x') + 'up\n')],
    ['over a link', 'USAGE', tree(link('l', '../outside/x') + file('l', 'x'))],
    ['over a link to nothing', 'USAGE', tree(link('l', 'nothing') + file('l', 'x'))],
    ['the same name twice', 'USAGE', tree(file('a', 'x') + file('a', 'y'))],
    ['a second tree', 'JAIL_FAILED', `${tree('')}${file('b', 'x')}`],
    ['a second file', 'JAIL_FAILED', file('a', 'x') + file('b', 'y')],
    ['up and up', 'JAIL_FAILED', `${tree('')}up\n${file('x', 'x')}`],
    ['an end too early', 'JAIL_FAILED', dir('.')],
    ['nothing', 'JAIL_FAILED', ''],
    ['an end within data', 'JAIL_FAILED', `${dir('.')}file 644 0 ${hex('a')}\ndata 0 100\nxx`],
    ['a negative place', 'JAIL_FAILED', tree(`file 644 0 ${hex('a')}\ndata -1 1\nxsize 1\n`)],
    ['data without bytes', 'JAIL_FAILED', tree(`file 644 0 ${hex('a')}\ndata 0 0\nsize 1\n`)],
    ['an endless file', 'LIMIT_EXCEEDED', tree(`file 644 0 ${hex('a')}\nsize ${2 ** 40 + 1}\n`)],
    ['an endless line', 'JAIL_FAILED', `${dir('.')}${'x'.repeat(100_000)}`],
    ['a line that is too long', 'JAIL_FAILED', tree(link('l', 'x'.repeat(20_000)))],
    ['a mode that is none', 'JAIL_FAILED', tree(`file 888 0 ${hex('a')}\nsize 0\n`)],
    ['a time that is none', 'JAIL_FAILED', tree(`file 644 1e9 ${hex('a')}\nsize 0\n`)],
    ['a path that is too long', 'LIMIT_EXCEEDED', tree(deep(20, 'n'.repeat(200)))],
    ['no such kind', 'JAIL_FAILED', tree(`device 644 0 ${hex('a')}\n`)],
    ['more bytes than may be', 'LIMIT_EXCEEDED', tree(file('a', 'x'.repeat(10_001)))],
    ['more entries than may be', 'LIMIT_EXCEEDED', tree(many)],
    ['what the other side gave up', 'USAGE', `${dir('.')}fail ${hex('why')}\n`],
  ])('%s is refused, and nothing stays', async (_, code, text) => {
    await expect(write(`${text}done\n`, 4096)).rejects.toMatchObject({ code });
    await expect(lstat(join(folder, 'out'))).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await readdir(join(folder, 'outside'))).toEqual([]);
  });

  test('an abort ends it, nothing stays, and no file is left open', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const opened = async () => {
      const all = await Promise.all(
        (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
      );
      return all.filter((path) => path.startsWith(folder));
    };
    let meanwhile = 0;
    async function* cut() {
      yield Buffer.from(dir('.') + dir('a') + file('b', 'x'));
      meanwhile = (await opened()).length;
      abort.abort(reason);
      yield Buffer.from('up\nup\ndone\n');
    }
    await expect(writeTree(cut(), join(folder, 'out'), new CopyCount(LIMITS), abort.signal)).rejects.toBe(reason);
    await expect(lstat(join(folder, 'out'))).rejects.toMatchObject({ code: 'ENOENT' });
    expect(meanwhile).toBeGreaterThan(0);
    expect(await opened()).toEqual([]);
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
