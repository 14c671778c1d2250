import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';

/** Writes an OCI image layout of one image, Debian's static busybox with a shell, into a new folder. */
export async function writeBusyboxLayout(folder: string): Promise<void> {
  const busybox = await findProgram('busybox');
  if (busybox === undefined) throw new Error('busybox is not installed (Debian package busybox-static)');
  const tree = `${folder}.tree`;
  for (const name of ['bin', 'dev', 'etc', 'proc', 'tmp']) await mkdir(join(tree, name), { recursive: true });
  await copyFile(busybox, join(tree, 'bin/busybox'));
  for (const name of ['cat', 'echo', 'ls', 'sh', 'sleep', 'stty']) await symlink('busybox', join(tree, 'bin', name));
  await writeFile(join(tree, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\n');
  const layer = `${folder}.tar`;
  const flags = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '-cf', layer];
  await run('tar', [...flags, '-C', tree, '.'], { timeoutMs: 30_000 });
  await mkdir(join(folder, 'blobs/sha256'), { recursive: true });
  const put = async (bytes: Buffer, mediaType: string) => {
    const hex = createHash('sha256').update(bytes).digest('hex');
    await writeFile(join(folder, 'blobs/sha256', hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const putJson = (value: object, kind: string) =>
    put(Buffer.from(JSON.stringify(value)), `application/vnd.oci.image.${kind}.v1+json`);
  const archive = await put(await readFile(layer), 'application/vnd.oci.image.layer.v1.tar');
  const config = await putJson(
    {
      architecture: 'amd64',
      os: 'linux',
      config: { Cmd: ['echo', 'hello from the image'], Env: ['PATH=/bin', 'GREETING=good day'] },
      rootfs: { type: 'layers', diff_ids: [archive.digest] },
    },
    'config',
  );
  const manifest = await putJson({ schemaVersion: 2, config, layers: [archive] }, 'manifest');
  await writeFile(join(folder, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
  await writeFile(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  await rm(tree, { recursive: true });
  await rm(layer);
}
