import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { findProgram } from '../packages/core/src/node/index.ts';
import {
  busyboxEntries,
  temporaryDirectory,
  writeOciLayout,
  type TemporaryDirectory,
} from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { ROOT, startDecant, succeed } from './support/decant.ts';
import { guestKernel } from './support/guest-kernel.ts';
import { have, output, tool } from './support/programs.ts';

const available = have('qemu-system-x86_64', 'busybox', 'cpio') && (await findProgram('apt-get')) !== undefined;

describe.skipIf(!available)('a virtual machine', () => {
  let folder: TemporaryDirectory;
  let home: string;

  beforeAll(async () => {
    folder = await temporaryDirectory('decant-e2e-');
    home = join(folder.path, 'home');
    const layout = join(folder.path, 'layout');
    const marker = { path: 'etc/marker', data: 'this came out of the image\n' };
    await writeOciLayout(layout, { layers: [await busyboxEntries(), [marker]] });
    await succeed(['image', 'import', `oci:${layout}`, '--streaming', '-n', 'guest'], { home });
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  test('[backend:qemu] boots with the NBD export as its root disk and runs a command', async () => {
    const { kernel, modules } = await guestKernel(join(ROOT, '.cache'));
    const initrd = await initialRamDisk(modules);
    const socket = join(folder.path, 'nbd.sock');
    await using server = startDecant(['image', 'serve', 'guest', '--socket', socket, '--json'], { home });
    const [line] = await server.seen(/^\{.*\}$/m);
    const { uri } = JSON.parse(line) as { uri: string };
    const console = await output(
      'qemu-system-x86_64',
      [
        ...['-accel', 'tcg', '-cpu', 'max', '-m', '256', '-nodefaults', '-no-user-config', '-display', 'none'],
        ...['-serial', 'stdio', '-no-reboot', '-kernel', kernel, '-initrd', initrd],
        ...['-append', 'console=ttyS0 panic=-1 quiet'],
        ...['-drive', `file=${uri},format=raw,if=virtio,readonly=on`],
      ],
      { timeoutMs: 240_000 },
    );
    expect(console).toContain('this came out of the image');
    expect(console).toMatch(/^\/dev\/vda \/ erofs ro/m);
    expect(console).toContain('the guest is done: 42');
  });

  /** An initial RAM disk that makes the disk the root file system and runs a command of the image as process 1. */
  async function initialRamDisk(modules: readonly string[]): Promise<string> {
    const tree = join(folder.path, 'initrd');
    for (const name of ['bin', 'dev', 'proc', 'sys', 'root', 'modules'])
      await mkdir(join(tree, name), { recursive: true });
    await copyFile((await findProgram('busybox'))!, join(tree, 'bin/busybox'));
    for (const module of modules) await copyFile(module, join(tree, 'modules', basename(module)));
    const inGuest =
      'mount -t proc proc /proc; cat /etc/marker; cat /proc/mounts; echo "the guest is done: $((6 * 7))"; busybox poweroff -f';
    const init = [
      '#!/bin/busybox sh',
      'busybox mount -t devtmpfs dev /dev',
      ...modules.map((module) => `busybox insmod /modules/${basename(module)}`),
      'for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; busybox sleep 1; done',
      'busybox mount -t erofs -o ro /dev/vda /root || busybox poweroff -f',
      'busybox mount --move /dev /root/dev',
      `exec busybox switch_root /root /bin/sh -c '${inGuest}'`,
    ];
    await writeFile(join(tree, 'init'), `${init.join('\n')}\n`);
    await chmod(join(tree, 'init'), 0o755);
    const file = join(folder.path, 'initrd.cpio');
    await tool('sh', ['-c', `find . | cpio --quiet --create --format=newc > "$1"`, 'sh', file], { cwd: tree });
    return file;
  }
});
