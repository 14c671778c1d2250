import { execFileSync } from 'node:child_process';
import { createServer } from 'node:net';
import {
  chmod,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { isDecantError, type ProgressEvent } from '@decant/core';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';

import { packMemoryContext } from '../index.ts';
import { digestContext, materializeContext, openContext, packContext, readDirectoryTree } from './index.ts';

let base: string;
let root: string;

// Modes are looked at; whoever runs this may have another one.
const umask = process.umask(0o022);
afterAll(() => void process.umask(umask));

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'decant-context-'));
  root = join(base, 'context');
  await mkdir(root);
  await writeFile(join(root, 'Dockerfile'), 'FROM scratch\n');
});

afterEach(async () => {
  await rm(base, { recursive: true });
});

const put = (path: string, content: string | Uint8Array = path) => writeFile(join(root, path), content);
const paths = async (options: { dockerfile?: string; workingDirectory?: string } = {}) =>
  (await openContext({ directory: root, ...options })).entries.map(({ path }) => path);

async function tarOf(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const piece of stream) pieces.push(piece);
  const file = join(base, 'out.tar');
  await writeFile(file, Buffer.concat(pieces));
  return file;
}

const tar = (...args: string[]) =>
  execFileSync('tar', args, { env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' } }).toString('latin1');

describe('which Dockerfile and which ignore file', () => {
  it('prefers the ignore file of the Dockerfile, even an empty one, also outside of the context', async () => {
    await put('a');
    await put('b');
    await put('.dockerignore', 'a\n');
    expect(await paths()).toEqual(['.dockerignore', 'Dockerfile', 'b']);
    await put('Dockerfile.dockerignore', '');
    expect(await paths()).toContain('a');
    await writeFile(join(base, 'X.df'), 'FROM scratch\n');
    await writeFile(join(base, 'X.df.dockerignore'), 'b\n');
    const context = await openContext({ directory: root, dockerfile: join(base, 'X.df') });
    expect(context.dockerfile).toMatchObject({ path: null, absolutePath: join(base, 'X.df') });
    expect(context.ignoreFile).toBe(join(base, 'X.df.dockerignore'));
    expect(context.entries.map(({ path }) => path)).toEqual([
      '.dockerignore',
      'Dockerfile',
      'Dockerfile.dockerignore',
      'a',
    ]);
  });

  it('looks for a named Dockerfile from the working directory first, then from the context', async () => {
    await mkdir(join(base, 'cwd'));
    await put('D', 'FROM context\n');
    const options = { dockerfile: 'D', workingDirectory: join(base, 'cwd') };
    expect((await openContext({ directory: root, ...options })).dockerfile.path).toBe('D');
    await writeFile(join(base, 'cwd/D'), 'FROM cwd\n');
    const { dockerfile } = await openContext({ directory: '../context', ...options });
    expect(Buffer.from(dockerfile.bytes).toString()).toBe('FROM cwd\n');
    expect(dockerfile.path).toBeNull();
  });

  it('takes a lower-case dockerfile, and keeps an excluded one apart', async () => {
    await rm(join(root, 'Dockerfile'));
    await put('dockerfile', 'FROM lower\n');
    await put('.dockerignore', 'dockerfile\n');
    const context = await openContext({ directory: root });
    expect(context.dockerfile).toMatchObject({ path: null, displayPath: 'dockerfile' });
    expect(Buffer.from(context.dockerfile.bytes).toString()).toBe('FROM lower\n');
    expect(context.entries.map(({ path }) => path)).toEqual(['.dockerignore']);
  });

  it('follows a link to an ignore file inside the context and none that leads out of it', async () => {
    await put('a');
    await put('rules', 'a\n');
    await symlink('rules', join(root, '.dockerignore'));
    expect(await paths()).not.toContain('a');
    await rm(join(root, '.dockerignore'));
    await writeFile(join(base, 'rules'), 'a\n');
    await symlink('../rules', join(root, '.dockerignore'));
    expect(await paths()).toContain('a');
  });

  it('follows a link to an ignore file of its own beside a Dockerfile outside', async () => {
    await put('a');
    await put('b');
    await writeFile(join(base, 'X.df'), 'FROM scratch\n');
    await writeFile(join(base, 'rules'), 'b\n');
    await symlink('rules', join(base, 'X.df.dockerignore'));
    expect(await paths({ dockerfile: join(base, 'X.df') })).toEqual(['Dockerfile', 'a']);
  });

  it('finds a Dockerfile that is a link where its bytes are, or nowhere among the entries', async () => {
    await rm(join(root, 'Dockerfile'));
    await put('real', 'FROM inside\n');
    await symlink('real', join(root, 'Dockerfile'));
    expect((await openContext({ directory: root })).dockerfile).toMatchObject({ path: 'real' });
    await rm(join(root, 'Dockerfile'));
    await writeFile(join(base, 'outside'), 'FROM outside\n');
    await symlink('../outside', join(root, 'Dockerfile'));
    const { dockerfile } = await openContext({ directory: root });
    expect([dockerfile.path, Buffer.from(dockerfile.bytes).toString()]).toEqual([null, 'FROM outside\n']);
  });

  it('reads at most 4 MiB of a Dockerfile and of an ignore file', async () => {
    const most = 4 * 1024 * 1024;
    await put('Dockerfile', `FROM a\n${'#'.repeat(most - 7)}`);
    expect((await openContext({ directory: root })).dockerfile.bytes).toHaveLength(most);
    await put('.dockerignore', '#'.repeat(most + 1));
    await expect(openContext({ directory: root })).rejects.toMatchObject({ code: 'CONTEXT_UNREADABLE' });
    await put('Dockerfile', `FROM a\n${'#'.repeat(most - 6)}`);
    await expect(openContext({ directory: root })).rejects.toMatchObject({ code: 'DOCKERFILE_UNREADABLE' });
  });

  it('does not take a directory, a FIFO or a dangling link for an ignore file', async () => {
    await mkdir(join(root, '.dockerignore'));
    expect((await openContext({ directory: root })).ignoreFile).toBeNull();
    await rm(join(root, '.dockerignore'), { recursive: true });
    await symlink('nowhere', join(root, '.dockerignore'));
    expect((await openContext({ directory: root })).ignoreFile).toBeNull();
    execFileSync('mkfifo', [join(root, 'Dockerfile.dockerignore')]);
    await expect(openContext({ directory: root })).rejects.toMatchObject({ code: 'CONTEXT_ENTRY_UNSUPPORTED' });
  });

  it('says what is missing', async () => {
    const fail = (options: Parameters<typeof openContext>[0]) => openContext(options).catch((error: unknown) => error);
    for (const directory of [join(base, 'none'), join(root, 'Dockerfile'), join(root, 'Dockerfile/x')]) {
      const failure = await fail({ directory });
      expect(isDecantError(failure, 'CONTEXT_UNREADABLE')).toBe(true);
      expect(failure).toMatchObject({ hint: expect.any(String) });
    }
    expect(await fail({ directory: root, dockerfile: 'no' })).toMatchObject({ code: 'DOCKERFILE_UNREADABLE' });
    expect(await fail({ directory: root, dockerfile: root })).toMatchObject({ code: 'DOCKERFILE_UNREADABLE' });
    await rm(join(root, 'Dockerfile'));
    expect(await fail({ directory: root })).toMatchObject({ code: 'DOCKERFILE_UNREADABLE', hint: expect.any(String) });
    expect(await fail({ directory: root, signal: AbortSignal.abort(new Error('stop')) })).toMatchObject({
      message: 'stop',
    });
  });
});

describe('what travels', () => {
  it('keeps links as links, finds second names, leaves sockets out and refuses FIFOs', async () => {
    await put('b');
    await link(join(root, 'b'), join(root, 'z'));
    await link(join(root, 'b'), join(root, 'a'));
    await symlink('/etc/passwd', join(root, 'out'));
    await symlink('nowhere', join(root, 'dangling'));
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(root, 'socket'), resolve));
    const context = await openContext({ directory: root });
    await new Promise((resolve) => server.close(resolve));
    expect(context.entries.map(({ path, type, linkTarget }) => [path, type, linkTarget])).toEqual([
      ['Dockerfile', 'file', undefined],
      ['a', 'file', undefined],
      ['b', 'hardlink', 'a'],
      ['dangling', 'symlink', 'nowhere'],
      ['out', 'symlink', '/etc/passwd'],
      ['z', 'hardlink', 'a'],
    ]);
    expect(context.totals).toEqual({ files: 6, bytes: 'FROM scratch\n'.length + 1 });
    execFileSync('mkfifo', [join(root, 'pipe')]);
    await expect(openContext({ directory: root })).rejects.toMatchObject({
      code: 'CONTEXT_ENTRY_UNSUPPORTED',
      details: { path: 'pipe' },
    });
    await put('.dockerignore', 'pipe\n');
    expect(await paths()).not.toContain('pipe');
  });

  it('names the largest files and warns of a large context without reading it', async () => {
    for (let index = 0; index < 12; index++) await put(`f${index}`, 'x'.repeat(100 + index));
    expect((await openContext({ directory: root })).largest.map(({ path }) => path)).toEqual(
      Array.from({ length: 10 }, (_, index) => `f${11 - index}`),
    );
    execFileSync('truncate', ['-s', '100000001', join(root, 'huge')]);
    expect((await openContext({ directory: root })).warnings).toEqual([expect.stringContaining('large')]);
  });
});

describe('the archive', () => {
  const odd = Buffer.from([0x6f, 0xff, 0x64]);

  async function fill() {
    const long = `${'d'.repeat(120)}/${'e'.repeat(120)}`;
    await mkdir(join(root, long), { recursive: true });
    await put(`${long}/${'f'.repeat(60)}`);
    await mkdir(join(root, 'x'));
    await put('x/run', '#!/bin/sh\n');
    await chmod(join(root, 'x/run'), 0o4755);
    await symlink('y'.repeat(150), join(root, 'x/link'));
    await link(join(root, 'x/run'), join(root, 'x/again'));
    await writeFile(Buffer.concat([Buffer.from(`${root}/`), odd]), 'odd');
    await symlink(odd, join(root, 'x/odd-link'));
    await writeFile(join(root, 'big'), Buffer.alloc(600_000, 7));
  }

  it('is what GNU tar reads: names as bytes, long names, links, modes, time 0, owner 0', async () => {
    await fill();
    const { stream } = packContext(await openContext({ directory: root }));
    const file = await tarOf(stream);
    const lines = tar('--numeric-owner', '--full-time', '--quoting-style=literal', '-tvf', file).trimEnd().split('\n');
    const long = `${'d'.repeat(120)}/${'e'.repeat(120)}`;
    expect(lines.map((line) => line.replace(/ +/g, ' '))).toEqual([
      '-rw-r--r-- 0/0 13 1970-01-01 00:00:00 Dockerfile',
      '-rw-r--r-- 0/0 600000 1970-01-01 00:00:00 big',
      `drwxr-xr-x 0/0 0 1970-01-01 00:00:00 ${'d'.repeat(120)}/`,
      `drwxr-xr-x 0/0 0 1970-01-01 00:00:00 ${long}/`,
      `-rw-r--r-- 0/0 302 1970-01-01 00:00:00 ${long}/${'f'.repeat(60)}`,
      '-rw-r--r-- 0/0 3 1970-01-01 00:00:00 o\xffd',
      'drwxr-xr-x 0/0 0 1970-01-01 00:00:00 x/',
      '-rwsr-xr-x 0/0 10 1970-01-01 00:00:00 x/again',
      `lrwxrwxrwx 0/0 0 1970-01-01 00:00:00 x/link -> ${'y'.repeat(150)}`,
      'lrwxrwxrwx 0/0 0 1970-01-01 00:00:00 x/odd-link -> o\xffd',
      'hrwsr-xr-x 0/0 0 1970-01-01 00:00:00 x/run link to x/again',
    ]);
    const out = join(base, 'extracted');
    await mkdir(out);
    tar('-xf', file, '-C', out);
    expect((await readFile(join(out, 'big'))).equals(Buffer.alloc(600_000, 7))).toBe(true);
    expect(await readFile(Buffer.concat([Buffer.from(`${out}/`), odd]), 'utf8')).toBe('odd');
  });

  it('has the digest of equal trees, of the same files in memory, and another after any change', async () => {
    await put('a', 'one');
    const digest = async () => (await digestContext(await openContext({ directory: root }))).digest;
    const first = await digest();
    await utimes(join(root, 'a'), 1, 1);
    expect(await digest()).toBe(first);
    const memory = packMemoryContext([
      { path: 'a', content: 'one' },
      { path: 'Dockerfile', content: 'FROM scratch\n' },
    ]);
    for await (const piece of memory.stream) void piece;
    expect(await memory.digest).toBe(first);
    await chmod(join(root, 'a'), 0o755);
    expect(await digest()).not.toBe(first);
  });

  it.each([
    ['grew', () => put('f', 'longer than before')],
    ['shrank', () => put('f', '')],
    ['was emptied before it was filled', () => put('empty', 'now')],
    ['was touched', () => utimes(join(root, 'f'), 5, 5)],
    ['went away', () => rm(join(root, 'f'))],
    ['became a link', async () => (await rm(join(root, 'f')), await symlink('Dockerfile', join(root, 'f')))],
    [
      'became a link to its other name',
      async () => (await rename(join(root, 'f'), join(root, 'g')), await symlink('g', join(root, 'f'))),
    ],
    ['became a FIFO', async () => (await rm(join(root, 'f')), execFileSync('mkfifo', [join(root, 'f')]))],
    ['became a directory', async () => (await rm(join(root, 'f')), await mkdir(join(root, 'f')))],
  ])('names a file that %s in between', async (_, change) => {
    await put('f', 'content');
    await put('empty', '');
    const context = await openContext({ directory: root });
    await change();
    const expected = { code: 'CONTEXT_CHANGED', details: { path: expect.stringMatching(/^(f|empty)$/) } };
    await expect(digestContext(context)).rejects.toMatchObject(expected);
    await expect(materializeContext(context, join(base, 'copy'))).rejects.toMatchObject(expected);
  });

  it.each([
    ['changes', () => put('big', Buffer.alloc(3_000_000, 1))],
    ['grows', () => put('big', Buffer.alloc(6_000_000, 1))],
  ])('notices a large file that %s while its bytes are read', async (_, change) => {
    await put('big', Buffer.alloc(3_000_000));
    // The clock of file times stands still for some milliseconds: what is written in them has one time.
    await utimes(join(root, 'big'), 1, 1);
    const { stream, tarBytes } = packContext(await openContext({ directory: root }));
    let bytes = 0;
    const reading = (async () => {
      for await (const piece of stream) {
        if (bytes === 0) await change();
        bytes += piece.length;
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'CONTEXT_CHANGED', details: { path: 'big' } });
    // What came behind its end was not sent first.
    expect(bytes).toBeLessThanOrEqual(tarBytes);
  });

  it('closes every file, also one that changed, and lets other work have its turn', async () => {
    await put('small', 'x');
    await put('big', Buffer.alloc(100_000));
    await put('changed', 'x');
    await put('grown', Buffer.alloc(100_000));
    const controller = new AbortController();
    const tree = await readDirectoryTree(root, { signal: controller.signal });
    const entryAt = (path: string) => tree.entries.find((entry) => entry.path === path)!;
    const gone = async (path: string) => {
      for await (const piece of tree.read(entryAt(path))) void piece;
    };
    await put('changed', 'changed');
    await put('grown', Buffer.alloc(200_000));
    await gone('small');
    await gone('big');
    for await (const piece of tree.read(entryAt('big'))) if (piece.length > 0) break;
    await expect(gone('changed')).rejects.toMatchObject({ code: 'CONTEXT_CHANGED' });
    await expect(gone('grown')).rejects.toMatchObject({ code: 'CONTEXT_CHANGED' });
    const links = (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''));
    expect((await Promise.all(links)).filter((path) => path.startsWith(root))).toEqual([]);
    // A timer can only stop this when it gets a turn.
    setTimeout(() => controller.abort(new Error('enough')), 0);
    const many = async () => {
      for (let round = 0; round < 200_000; round++) await gone('small');
    };
    await expect(many()).rejects.toThrow('enough');
  });

  it('reports where it is', async () => {
    const events: ProgressEvent[] = [];
    const { tarBytes } = await digestContext(await openContext({ directory: root }), {
      onEvent: (event) => events.push(event),
    });
    expect(events.at(0)).toMatchObject({ type: 'stage-started', totalBytes: tarBytes });
    expect(events.at(-1)).toMatchObject({ type: 'stage-finished', bytes: tarBytes });
  });

  it('is equal to that of a materialized copy', async () => {
    await fill();
    await put('.dockerignore', 'big\n.dockerignore\n');
    await mkdir(join(root, 'locked'));
    await put('locked/in');
    await chmod(join(root, 'locked'), 0o555);
    const context = await openContext({ directory: root });
    const { digest } = await digestContext(context);
    // The archive says what was listed, and so does the copy.
    await chmod(join(root, 'x/run'), 0o600);
    const copy = join(base, 'copy');
    await materializeContext(context, copy);
    expect(await readdir(copy)).not.toContain('big');
    expect(await readlink(join(copy, 'x/link'))).toBe('y'.repeat(150));
    expect((await lstat(join(copy, 'x/run'))).mtimeMs).toBe(0);
    expect((await lstat(join(copy, 'x/link'))).mtimeMs).toBe(0);
    expect((await lstat(join(copy, 'locked'))).mtimeMs).toBe(0);
    const again = await openContext({ directory: copy });
    expect((await digestContext(again)).digest).toBe(digest);
    await expect(materializeContext(context, copy)).rejects.toMatchObject({ code: 'USAGE' });
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(materializeContext(context, join(base, 'aborted'), { signal })).rejects.toThrow('enough');
    expect(await readdir(join(base, 'aborted'))).toEqual([]);
    await chmod(join(root, 'locked'), 0o755);
  });
});
