import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { probeJail } from '../probe.ts';
import { openSandbox } from './open-sandbox.ts';
import type { Sandbox } from './types.ts';

const available = (await probeJail()).ok && (await findProgram('mkfs.erofs')) !== undefined;

describe.skipIf(!available)('[backend:bubblewrap] single files of a sandbox', () => {
  let folder: string;
  let sandbox: Sandbox;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'jail-files-'));
    const tree = join(folder, 'tree');
    for (const name of ['etc', 'tmp']) await mkdir(join(tree, name), { recursive: true });
    await writeFile(join(tree, 'etc/bundle'), 'x'.repeat(300_000));
    await writeFile(join(tree, 'etc/private'), 'for root', { mode: 0o600 });
    await writeFile(join(tree, 'etc/empty'), '');
    await writeFile(join(tree, 'etc/large'), Buffer.alloc(9 * 1024 * 1024, 120));
    await symlink('bundle', join(tree, 'etc/link'));
    await symlink('/etc/hostname', join(tree, 'etc/out'));
    await symlink('../../../../../../../../etc/passwd', join(tree, 'etc/climbing'));
    await symlink('loop', join(tree, 'etc/loop'));
    await run('mkfifo', [join(tree, 'etc/pipe')]);
    const file = join(folder, 'image.erofs');
    await run('mkfs.erofs', [file, tree], { timeoutMs: 120_000 });
    sandbox = await openSandbox({
      disk: { file },
      filesystem: 'erofs',
      writeLayer: { kind: 'memory', bytes: 32 * 1024 * 1024 },
      stateDirectory: join(folder, 'state'),
    });
  });
  afterAll(async () => {
    await sandbox?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  test('are read, links inside followed and no others; what is no plain file is none', async () => {
    await sandbox.withFiles(async (files) => {
      const text = async (path: string) => (await files.read(path))?.toString();
      expect((await files.read('/etc/bundle'))?.length).toBe(300_000);
      expect((await files.read('/etc/link'))?.length).toBe(300_000);
      expect(await text('/etc/private')).toBe('for root');
      expect(await text('/etc/empty')).toBe('');
      for (const path of ['none', 'none/below', 'large', 'pipe', 'out', 'climbing', 'loop', 'bundle/below', '..']) {
        expect([path, await files.read(`/etc/${path}`)]).toEqual([path, undefined]);
      }
      expect(await files.read('/dev/null')).toBeUndefined();
      await expect(files.read('etc/bundle')).rejects.toMatchObject({ code: 'USAGE' });
    });
  });

  test('are written in place of what was there, and folders are made', async () => {
    await sandbox.withFiles(async (files) => {
      await files.write('/new/deep/file', Buffer.from('one'), 0o644);
      await files.write('/etc/link', Buffer.from('two'), 0o600);
      await files.write('/etc/out', Buffer.alloc(1_000_000, 65), 0o4755);
      await files.write('/etc/pipe', Buffer.from(''), 0o644);
      expect((await files.read('/new/deep/file'))?.toString()).toBe('one');
      expect((await files.read('/etc/link'))?.toString()).toBe('two');
      expect((await files.read('/etc/bundle'))?.length).toBe(300_000);
      expect((await files.read('/etc/out'))?.length).toBe(1_000_000);
      for (const path of ['/etc', '/etc/bundle/below', '/proc/none', '/etc/']) {
        await expect(files.write(path, Buffer.from('x'), 0o644)).rejects.toMatchObject({ code: 'USAGE' });
      }
      await expect(files.write('/etc/x', Buffer.alloc(9 * 1024 * 1024), 0o644)).rejects.toMatchObject({
        code: 'LIMIT_EXCEEDED',
      });
      // Refusals end nothing.
      expect((await files.read('/new/deep/file'))?.toString()).toBe('one');
    });
  });

  test('many at a time get their own answers', async () => {
    await sandbox.withFiles(async (files) => {
      const names = Array.from({ length: 20 }, (_, index) => `/tmp/many-${index}`);
      await Promise.all(names.map((name) => files.write(name, Buffer.from(name), 0o644)));
      const read = await Promise.all(names.map(async (name) => (await files.read(name))?.toString()));
      expect(read).toEqual(names);
    });
  });

  test('an abort ends it', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const work = sandbox.withFiles(async (files) => {
      controller.abort(reason);
      await files.read('/etc/bundle');
    }, controller.signal);
    await expect(work).rejects.toBe(reason);
  });
});
