import { open, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';

import { decant, failure, startDecant, succeed } from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { have, isRoot, tool } from './support/programs.ts';

const available = isRoot && have('busybox', 'bwrap', 'nbdfuse', 'nbdcopy', 'fsck.erofs');

describe.skipIf(!available)('[backend:libnbd] objects at rest that were changed', () => {
  let folder: TemporaryDirectory | undefined;
  let home: string;

  beforeEach(async () => {
    await folder?.[Symbol.asyncDispose]();
    folder = await temporaryDirectory('decant-e2e-');
    home = join(folder.path, 'home');
    const entries = [{ path: 'etc/data', data: 'the right data\n'.repeat(20_000) }];
    const source = await smallImage(folder.path, 'layout', { entries, noiseBytes: 2 ** 20 });
    await succeed(['image', 'import', source, '--streaming', '-n', 'app'], { home });
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  async function objects(kind: string): Promise<string[]> {
    const top = join(home, 'objects/objects/ns/default', kind);
    const names = await readdir(top, { recursive: true });
    const paths = names.map((name) => join(top, name));
    const files = await Promise.all(paths.map(async (path) => ((await stat(path)).isFile() ? [path] : [])));
    return files.flat();
  }

  async function flip(path: string, offset: number): Promise<void> {
    await using file = await open(path, 'r+');
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, offset);
    await file.write(Buffer.of(buffer[0]! ^ 1), 0, 1, offset);
  }

  test('a byte of a pack: verify names the chunk, readers get an error and never wrong data', async () => {
    const right = join(folder!.path, 'right.raw');
    await succeed(['image', 'export', 'app', '--raw', right], { home });
    const [pack = ''] = await objects('packs');
    // Every hundredth of the frames, so that whatever is read hits one.
    const { size } = await stat(pack);
    for (let at = 48; at < size - 2000; at += Math.floor(size / 100)) await flip(pack, at);
    const broken = await failure(['image', 'verify', 'app'], { home });
    expect(broken.status).toBe(6);
    expect(broken.code).toMatch(/^CAS_/);
    expect(broken.message).toMatch(/[0-9a-f]{64}/);
    const file = join(folder!.path, 'wrong.raw');
    expect((await failure(['image', 'export', 'app', '--raw', file], { home })).status).toBe(6);
    expect((await readdir(folder!.path)).filter((name) => name.includes('wrong'))).toEqual([]);
    const ran = await decant(['run', 'app', '--', 'cat', '/etc/data'], { home });
    expect(ran.status).not.toBe(0);
    expect(ran.stdout).toBe('');
    expect(ran.stderr).toContain('[');
    const socket = join(folder!.path, 'nbd.sock');
    await using server = startDecant(['image', 'serve', 'app', '--socket', socket, '--json'], { home });
    const [line] = await server.seen(/^\{.*\}$/m);
    const { uri } = JSON.parse(line) as { uri: string };
    await expect(tool('nbdcopy', [uri, file])).rejects.toThrow(/Input\/output error|EIO/);
  });

  test('a chunk in the middle of what runs: an error, not wrong data', async () => {
    const [pack = ''] = await objects('packs');
    // Of the noise, which the shell never reads.
    await flip(pack, Math.floor((await stat(pack)).size * 0.75));
    expect((await failure(['image', 'verify', 'app'], { home })).status).toBe(6);
    const ran = await decant(
      ['run', 'app', '--', 'sh', '-c', 'cat /noise-0 > /tmp/copy && echo copied; echo still here'],
      { home },
    );
    expect(ran.stdout).toBe('still here\n');
    expect(ran.stderr).toMatch(/Input\/output error|I\/O error/);
  });

  test('a pack that is gone or cut', async () => {
    const [pack = ''] = await objects('packs');
    const bytes = await readFile(pack);
    await rename(pack, `${pack}.away`);
    expect(await failure(['image', 'verify', 'app'], { home })).toMatchObject({ status: 6, code: 'CAS_CHUNK_MISSING' });
    await writeFile(pack, bytes.subarray(0, bytes.length / 2));
    expect([6, 7]).toContain((await failure(['image', 'verify', 'app'], { home })).status);
    await writeFile(pack, bytes);
    await succeed(['image', 'verify', 'app'], { home });
  });

  test.each([
    { kind: 'manifests', mended: false },
    { kind: 'locators', mended: true },
  ])('a byte of the object in $kind', async ({ kind, mended }) => {
    const [path = ''] = await objects(kind);
    const before = await readFile(path);
    await flip(path, 100);
    const run = ['run', 'app', '--', 'echo', 'hi'];
    // Where the block with the file system's head cannot be read, it is the mount that fails.
    expect([6, 7]).toContain((await failure(run, { home })).status);
    if (mended) {
      // It says nothing that the server does not know.
      const { stdout } = await succeed(['image', 'verify', 'app', '--json'], { home });
      expect(JSON.parse(stdout)).toMatchObject({ locatorMended: true });
      expect(await readFile(path)).toEqual(before);
      expect((await succeed(run, { home })).stdout).toBe('hi\n');
    } else {
      expect(await failure(['image', 'verify', 'app'], { home })).toMatchObject({ status: 6 });
      expect([6, 7]).toContain((await failure(run, { home })).status);
    }
  });
});
