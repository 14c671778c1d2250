import { chmod, chown, copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';

const APPLETS = [
  'sh',
  'echo',
  'cat',
  'ls',
  'id',
  'sleep',
  'env',
  'touch',
  'stat',
  'wget',
  'nc',
  'nslookup',
  'kill',
  'ps',
];

/** Makes an erofs image of busybox with a user `app`, in a folder. Needs busybox and mkfs.erofs. */
export async function makeTestImage(folder: string): Promise<string> {
  const tree = join(folder, 'tree');
  for (const name of ['bin', 'etc/ssl/certs', 'tmp', 'home/app', 'run'])
    await mkdir(join(tree, name), { recursive: true });
  await copyFile((await findProgram('busybox'))!, join(tree, 'bin/busybox'));
  for (const name of APPLETS) await symlink('busybox', join(tree, 'bin', name));
  await writeFile(join(tree, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n');
  await writeFile(join(tree, 'etc/group'), 'root:x:0:\napp:x:1000:\n');
  await chmod(join(tree, 'tmp'), 0o1777);
  await chown(join(tree, 'home/app'), 1000, 1000);
  const image = join(folder, 'image.erofs');
  await run('mkfs.erofs', [image, tree], { timeoutMs: 120_000 });
  return image;
}
