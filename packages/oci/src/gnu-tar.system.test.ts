import { execFileSync } from 'node:child_process';
import {
  chmod,
  link,
  lstat,
  lutimes,
  mkdir,
  mkdtemp,
  open,
  readFile,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { findProgram } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { readTar } from './tar-reader.ts';
import type { TarEntry } from './tar-entry.ts';
import { inPieces } from './testing/streams.ts';

const programs = await Promise.all(['tar', 'setfattr', 'mknod'].map(findProgram));
const available = programs.every((program) => program !== undefined) && process.getuid?.() === 0;

let directory: string;
let source: string;
const LONG = `${'d'.repeat(120)}/${'e'.repeat(120)}/${'f'.repeat(90)}`;

beforeAll(async () => {
  if (!available) return;
  directory = await mkdtemp(join(tmpdir(), 'gnu-tar-'));
  source = join(directory, 'tree');
  await mkdir(join(source, 'dir'), { recursive: true });
  await writeFile(join(source, 'file'), 'hello');
  await chmod(join(source, 'file'), 0o4755);
  await link(join(source, 'file'), join(source, 'hard'));
  await symlink('../somewhere/else', join(source, 'link'));
  await symlink('t'.repeat(300), join(source, 'long-link'));
  await mkdir(join(source, LONG), { recursive: true });
  await writeFile(join(source, LONG, 'x'), 'deep');
  await writeFile(join(source, 'dir', 'naïve \n"name"'), 'odd');
  await utimes(join(source, 'file'), 1, 1_700_000_000.25);
  await lutimes(join(source, 'link'), 1, 7_260_000_000);
  execFileSync('mknod', [join(source, 'null'), 'c', '1', '3']);
  execFileSync('mknod', [join(source, 'disk'), 'b', '8', '17']);
  execFileSync('mkfifo', [join(source, 'pipe')]);
  execFileSync('chown', ['4000000:3000000', join(source, 'dir')]);
  execFileSync('setfattr', ['-n', 'user.binary', '-v', '0x00ff0a3d', join(source, 'file')]);
  const holes = await open(join(source, 'holes'), 'w');
  for (const at of [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 40_000_000])
    await holes.write('data', at);
  await holes.truncate(50_000_000);
  await holes.close();
});
afterAll(async () => {
  if (available) await rm(directory, { recursive: true, force: true });
});

async function archive(
  name: string,
  args: readonly string[],
): Promise<{ tar: Buffer; entries: Map<string, TarEntry> }> {
  const path = join(directory, `${name}.tar`);
  execFileSync('tar', [...args, '--sort=name', '-cf', path, '-C', source, '.']);
  const tar = await readFile(path);
  const entries = new Map<string, TarEntry>();
  for await (const entry of readTar(inPieces(tar, 10_007))) {
    const key = Buffer.from(entry.path, 'latin1').toString().replace(/^\.\//, '').replace(/\/$/, '');
    entries.set(key, entry);
  }
  return { tar, entries };
}

const PAX = ['--format=posix', '--xattrs', '--xattrs-include=*'];

describe.skipIf(!available)('[backend:gnu-tar] readTar on what GNU tar writes', () => {
  it.each([
    ['gnu', ['--format=gnu'], false],
    ['gnu sparse', ['--format=gnu', '-S'], true],
    ['posix', PAX, false],
    ['posix sparse 0.0', [...PAX, '-S', '--sparse-version=0.0'], true],
    ['posix sparse 0.1', [...PAX, '-S', '--sparse-version=0.1'], true],
    ['posix sparse 1.0', [...PAX, '-S', '--sparse-version=1.0'], true],
  ] as const)('%s', async (name, args, sparse) => {
    const { tar, entries } = await archive(name, args);
    const types = {
      file: 'file',
      hard: 'hardlink',
      link: 'symlink',
      null: 'character-device',
      disk: 'block-device',
      pipe: 'fifo',
      dir: 'directory',
    };
    for (const [path, type] of Object.entries(types)) expect(entries.get(path)?.type, path).toBe(type);
    expect(entries.get('null')).toMatchObject({ devMajor: 1, devMinor: 3 });
    expect(entries.get('disk')).toMatchObject({ devMajor: 8, devMinor: 17 });
    expect(entries.get('link')?.linkPath).toBe('../somewhere/else');
    expect(entries.get('long-link')?.linkPath).toBe('t'.repeat(300));
    expect(entries.get('hard')?.linkPath).toBe('./file');
    expect(entries.get('dir')).toMatchObject({ uid: 4_000_000, gid: 3_000_000 });
    for (const [path, entry] of entries) {
      if (path === '') continue;
      const facts = await lstat(join(source, path), { bigint: true });
      expect(entry.mode, path).toBe(Number(facts.mode & 0o7777n));
      expect(entry.mtimeSeconds, path).toBe(Number(facts.mtimeNs / 1_000_000_000n));
      if (args === PAX) expect(entry.mtimeNanoseconds, path).toBe(Number(facts.mtimeNs % 1_000_000_000n));
      if (entry.type !== 'file') continue;
      expect(expand(tar, entry).equals(await readFile(join(source, path))), path).toBe(true);
    }
    expect(entries.has(`${LONG}/x`)).toBe(true);
    expect(entries.has('dir/naïve \n"name"')).toBe(true);
    expect(entries.get('holes')?.sparse !== undefined).toBe(sparse);
    if (sparse) expect(entries.get('holes')!.storedBytes).toBeLessThan(1_000_000);
    if (name.startsWith('posix')) {
      expect(
        entries.get('file')?.xattrs.map((xattr) => [xattr.name, Buffer.from(xattr.value).toString('hex')]),
      ).toEqual([['user.binary', '00ff0a3d']]);
    }
  });
});

function expand(tar: Buffer, entry: TarEntry): Buffer {
  const bytes = Buffer.alloc(entry.sizeBytes);
  let offset = entry.dataOffset;
  for (const { fileOffset, lengthBytes } of entry.sparse ?? [{ fileOffset: 0, lengthBytes: entry.sizeBytes }]) {
    tar.copy(bytes, fileOffset, offset, offset + lengthBytes);
    offset += lengthBytes;
  }
  return bytes;
}
