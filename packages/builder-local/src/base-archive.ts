import { createHash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { copyFile, link, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { canonicalJson } from '@decant/core';
import { run } from '@decant/core/node';

import type { Architecture, CallOptions } from './driver.ts';

/**
 * A root filesystem archive as the one layer of an image, in the form that `docker save` writes:
 *   manifest.json   [{ Config, RepoTags, Layers }]
 *   config.json     the image configuration, with fixed times, so that equal archives are equal images
 *   layer.tar       the archive as it is
 * Returns the file, which lies in `directory`.
 */
export async function writeBaseArchive(
  base: { readonly tarFile: string; readonly name: string; readonly architecture: Architecture },
  directory: string,
  { signal }: CallOptions = {},
): Promise<string> {
  const source = resolve(base.tarFile);
  const layer = join(directory, 'layer.tar');
  // A second name when both are on one disk, else a copy.
  await link(source, layer).catch(() => copyFile(source, layer, constants.COPYFILE_FICLONE));
  const hash = createHash('sha256');
  for await (const piece of createReadStream(layer, { highWaterMark: 1024 * 1024, signal }))
    hash.update(piece as Buffer);
  const created = '1970-01-01T00:00:00Z';
  const config = {
    architecture: base.architecture,
    os: 'linux',
    created,
    config: {},
    history: [{ created, created_by: 'import' }],
    rootfs: { type: 'layers', diff_ids: [`sha256:${hash.digest('hex')}`] },
  };
  const manifest = [{ Config: 'config.json', RepoTags: [base.name], Layers: ['layer.tar'] }];
  await writeFile(join(directory, 'config.json'), canonicalJson(config));
  await writeFile(join(directory, 'manifest.json'), canonicalJson(manifest));
  const file = join(directory, 'image.tar');
  await run('tar', ['-C', directory, '-cf', file, 'manifest.json', 'config.json', 'layer.tar'], { signal });
  return file;
}
