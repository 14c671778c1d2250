import { renameSync, symlinkSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { CopyCount, readTree } from './tree-reader.ts';
import { writeTree } from './tree-writer.ts';

/** What somebody else does just after a call. */
const others = vi.hoisted(() => ({ after: undefined as ((call: string, path: string) => void) | undefined }));

vi.mock(import('node:fs/promises'), async (original) => {
  const real = await original();
  const watched =
    <A extends readonly unknown[], R>(name: string, call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      const result = await call(...args);
      others.after?.(name, String(args[0]));
      return result;
    };
  return {
    ...real,
    lstat: watched('lstat', real.lstat) as typeof real.lstat,
    realpath: watched('realpath', real.realpath) as typeof real.realpath,
    mkdir: watched('mkdir', real.mkdir) as typeof real.mkdir,
  };
});

const available = process.platform === 'linux';
const LIMITS = { entries: 100, bytes: 10_000 };

describe.skipIf(!available)('a tree whose parts become links while it is copied', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await realpath(await mkdtemp(join(tmpdir(), 'jail-races-')));
    for (const name of ['tree/inner', 'outside']) await mkdir(join(folder, name), { recursive: true });
    await writeFile(join(folder, 'tree/inner/file'), 'inside');
    await writeFile(join(folder, 'outside/file'), 'secret');
  });
  afterEach(async () => {
    others.after = undefined;
    await rm(folder, { recursive: true, force: true });
  });

  /** What is at a path becomes a link to another one as soon as `call` was made for what ends like this. */
  function swapAfter(call: string, ending: string, path: string, target: string): void {
    others.after = (made, at) => {
      if (made !== call || !at.endsWith(ending)) return;
      others.after = undefined;
      renameSync(join(folder, path), join(folder, 'moved'));
      symlinkSync(join(folder, target), join(folder, path));
    };
  }

  async function putBack(path: string): Promise<void> {
    await rm(join(folder, path));
    renameSync(join(folder, 'moved'), join(folder, path));
  }

  async function read(source: string): Promise<string> {
    const pieces: Buffer[] = [];
    for await (const piece of readTree(source, new CopyCount(LIMITS), undefined)) pieces.push(Buffer.from(piece));
    return Buffer.concat(pieces).toString('latin1');
  }

  test('it is read without rights of its owner', async () => {
    await chmod(join(folder, 'tree/inner/file'), 0o6755);
    expect(await read(join(folder, 'tree/inner/file'))).toMatch(/^file 755 /);
  });

  test('a file, a folder in it and a folder above it lead nowhere else', async () => {
    for (const [call, ending, path, target, from] of [
      ['lstat', '/file', 'tree/inner/file', 'outside/file', 'tree'],
      ['lstat', '/inner', 'tree/inner', 'outside', 'tree'],
      ['realpath', '/file', 'tree/inner/file', 'outside/file', 'tree/inner/file'],
      ['realpath', '/file', 'tree/inner', 'outside', 'tree/inner/file'],
    ] as const) {
      swapAfter(call, ending, path, target);
      await expect(read(join(folder, from)), path).rejects.toMatchObject({ code: 'USAGE' });
      expect(others.after).toBeUndefined();
      await putBack(path);
    }
    expect(await read(join(folder, 'tree/inner'))).toContain('inside');
  });

  test('nothing is written through a folder that became a link', async () => {
    const hex = (text: string) => Buffer.from(text).toString('hex');
    swapAfter('mkdir', '/deep', 'out/deep', 'outside');
    const text = `dir 755 0 ${hex('.')}\ndir 755 0 ${hex('deep')}\nfile 644 0 ${hex('new')}\nsize 0\nup\nup\ndone\n`;
    const writing = writeTree(source(text), join(folder, 'out'), new CopyCount(LIMITS), undefined);
    await expect(writing).rejects.toMatchObject({ code: 'USAGE' });
    expect(await readdir(join(folder, 'outside'))).toEqual(['file']);
  });
});

async function* source(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}
