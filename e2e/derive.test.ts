import { copyFile, mkdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram, run } from '../packages/core/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { decant, decantJson, failure, type DecantOptions, type MadeImage } from './support/decant.ts';
import { have, isRoot } from './support/programs.ts';

const available = isRoot && have('bwrap', 'nbdfuse', 'busybox', 'tar');

/** A root filesystem with a user `node`, as an archive. */
async function baseArchive(folder: string): Promise<string> {
  const root = join(folder, 'base');
  for (const name of ['bin', 'etc', 'home/node', 'proc', 'dev', 'tmp', 'sys']) {
    await mkdir(join(root, name), { recursive: true });
  }
  await copyFile((await findProgram('busybox'))!, join(root, 'bin/busybox'));
  for (const name of ['sh', 'cat', 'ls', 'pwd', 'id', 'stat'])
    await run('ln', ['-s', 'busybox', join(root, 'bin', name)]);
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n');
  const file = join(folder, 'base.tar');
  await run('tar', ['-C', root, '--owner=0', '--group=0', '--mtime=@0', '-cf', file, '.']);
  return file;
}

describe('[backend:bubblewrap] a workspace added to a base', () => {
  let folder: TemporaryDirectory;
  let options: DecantOptions;
  let workspace: string;
  let base: string;

  beforeAll(async () => {
    if (!available) return;
    folder = await temporaryDirectory('decant-e2e-');
    options = { home: join(folder.path, 'home'), env: { DOCKER_HOST: 'unix:///nowhere/docker.sock' } };
    base = `tar:${await baseArchive(folder.path)}`;
    workspace = join(folder.path, 'project');
    for (const name of ['.git', 'src', 'node_modules/x']) await mkdir(join(workspace, name), { recursive: true });
    await writeFile(join(workspace, '.gitignore'), 'node_modules/\n');
    await writeFile(join(workspace, '.git/HEAD'), 'ref: refs/heads/main\n');
    await writeFile(join(workspace, 'src/main.txt'), 'work\n');
    await writeFile(join(workspace, 'node_modules/x/y'), 'y\n');
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  const derive = (from: string, name: string, ...more: string[]) => [
    'image',
    'create',
    '--from-image',
    from,
    '--workspace',
    workspace,
    '--streaming',
    '-n',
    name,
    ...more,
  ];

  test.skipIf(!available)('is where work begins, trusted, and equal on another day; any image is a base', async () => {
    const first = await decantJson<MadeImage>(derive(base, 'agent', '--gitignore'), options);
    await utimes(join(workspace, 'src/main.txt'), 1, 1);
    const second = await decantJson<MadeImage>(derive(base, 'agent', '--gitignore'), options);
    expect(second.image.id).toBe(first.image.id);
    const script = 'pwd; ls -A; cat src/main.txt /etc/gitconfig /root/.claude.json';
    const { stdout, status } = await decant(['run', 'agent', '--', 'sh', '-c', script], options);
    expect(status).toBe(0);
    expect(stdout).toContain('/root/workspace\n.git\n.gitignore\nsrc\nwork\n[safe]\n\tdirectory = "/root/workspace"\n');
    expect(stdout).toContain('"hasTrustDialogAccepted": true');
    const again = await decantJson<MadeImage>(derive('agent', 'agent:two'), options);
    expect(again.image.id).not.toBe(first.image.id);
    expect(again.chunks!.reused).toBeGreaterThan(0);
    const listed = await decant(['run', 'agent:two', '--', 'sh', '-c', 'ls; cat /etc/gitconfig'], options);
    // Without --gitignore all of it is there, and the mark is there once.
    expect(listed.stdout).toBe('node_modules\nsrc\n[safe]\n\tdirectory = "/root/workspace"\n');
  });

  test.skipIf(!available || !have('mkfs.ext4'))('[backend:e2fsprogs] is the same on an ext4 image', async () => {
    const made: string[] = [];
    for (const [name, ...format] of [['whole'], ['streamed', '--streaming']] as const) {
      await decantJson<MadeImage>(['image', 'import', base, '-n', name, ...format], options);
      made.push((await decantJson<MadeImage>(derive(name, `on-${name}`), options)).image.id);
    }
    expect(made[0]).toMatch(/^cas-v1:/);
    expect(made[1]).toBe(made[0]);
  });

  test.skipIf(!available)('is refused where it cannot be', async () => {
    expect(await failure(derive('absent', 'never'), options)).toMatchObject({ status: 4, code: 'NOT_FOUND' });
    const nothing = ['image', 'create', '--from-image', base, '-n', 'never'];
    expect(await failure(nothing, options)).toMatchObject({ status: 2, code: 'USAGE' });
    const missing = [...nothing, '--workspace', join(workspace, 'nowhere')];
    expect(await failure(missing, options)).toMatchObject({ code: 'CONTEXT_UNREADABLE' });
  });
});
