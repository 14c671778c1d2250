import { copyFile, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { probeJail } from '../probe.ts';
import { openSandbox } from './open-sandbox.ts';
import type { Sandbox, SandboxOptions } from './types.ts';
import { volumeTemplate } from './volume-template.ts';

const programs = await Promise.all(['mkfs.erofs', 'e2fsck', 'busybox'].map(findProgram));
const available = (await probeJail()).ok && programs.every((path) => path !== undefined);
const MIB = 1024 * 1024;

describe.skipIf(!available)('[backend:erofs-utils] write layers of one size', () => {
  let folder: string;
  let options: SandboxOptions;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'jail-volume-'));
    const tree = join(folder, 'tree');
    await mkdir(join(tree, 'bin'), { recursive: true });
    await copyFile(programs[2]!, join(tree, 'bin/busybox'));
    for (const name of ['sh', 'cat', 'dd', 'ls']) await symlink('busybox', join(tree, 'bin', name));
    const file = join(folder, 'image');
    await run('mkfs.erofs', [file, tree], { timeoutMs: 20_000 });
    options = {
      ...{ disk: { file }, filesystem: 'erofs', stateDirectory: join(folder, 'state') },
      writeLayer: { kind: 'disk', bytes: 48 * MIB },
    };
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  async function sh(sandbox: Sandbox, line: string): Promise<string> {
    const { stdin, stdout, stderr, exit } = await sandbox.exec({ argv: ['sh', '-c', line], env: { PATH: '/bin' } });
    stdin.end();
    const [out, errors] = await Promise.all([text(stdout), text(stderr), exit]);
    return out + errors;
  }

  test('are copies of the first, whole, empty and apart', async () => {
    await using first = await openSandbox(options);
    const { use, path } = (await volumeTemplate(48 * MIB, folder))!;
    expect(use).toBe('template');
    // e2fsck -f -n: everything is looked at, nothing is changed.
    await run('e2fsck', ['-f', '-n', path], { timeoutMs: 20_000 });
    expect(await sh(first, 'echo of the first > /note; cat /note')).toBe('of the first\n');
    await using second = await openSandbox(options);
    expect(await sh(second, 'ls -a /')).not.toContain('note');
    const full = await sh(second, 'dd if=/dev/zero of=/big bs=1M count=64; ls -l /big');
    expect(full).toContain('No space left on device');
    // What was written is in neither the other one nor the template.
    expect(await sh(first, 'cat /note; ls /')).not.toContain('big');
    await using third = await openSandbox(options);
    expect(await sh(third, 'ls -a /')).not.toMatch(/note|big/);
    await run('e2fsck', ['-f', '-n', path], { timeoutMs: 20_000 });
  });

  test('a set-up that fails keeps nothing, and the next one is made anew', async () => {
    const missing = { ...options, writeLayer: { kind: 'disk', bytes: 23 * MIB }, disk: { file: '/nowhere' } } as const;
    await expect(openSandbox(missing)).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    await using sandbox = await openSandbox({ ...missing, disk: options.disk });
    expect(await sh(sandbox, 'echo written > /file; cat /file')).toBe('written\n');
    expect((await volumeTemplate(23 * MIB, folder))?.use).toBe('template');
  });

  test('of many sizes are each made as they must be', async () => {
    for (const bytes of [17, 18, 19, 20, 21].map((size) => size * MIB)) {
      await using sandbox = await openSandbox({ ...options, writeLayer: { kind: 'disk', bytes } });
      expect(await sh(sandbox, 'echo written > /file; cat /file')).toBe('written\n');
    }
    // The sizes of the first ones are kept; nothing has a name.
    expect(await volumeTemplate(21 * MIB, folder)).toBeUndefined();
    expect(await readdir(join(folder, 'state'))).toEqual([]);
  });
});
