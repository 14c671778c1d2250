import { createReadStream } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { isDecantError } from '../../packages/core/src/index.ts';
import { digestOf, makeTar } from '../../packages/oci/src/testing/index.ts';
import { list } from '../../packages/rootfs/src/flatten-fixtures.ts';
import { createScratch, flattenTar } from '../../packages/rootfs/src/index.ts';
import { tool } from './programs.ts';

/** What the engine puts into every container it makes. */
const OF_THE_ENGINE = /^\/(\.dockerenv|dev|etc|proc|sys)(\/|$)/;

/** Most levels of a path of 4,096 bytes. */
const MOST_LEVELS = 2048;

/**
 * What docker makes of an image with these layers, lowest first: the image is loaded, a container of it is made and exported, and
 * what is in it then is told as `list` of the fixtures tells it. `reject` when docker does not load it. The
 * image is called `name`; {@link removeLoaded} removes it.
 */
export async function loadedTree(
  layers: readonly Uint8Array[],
  { name, folder }: { readonly name: string; readonly folder: string },
): Promise<Readonly<Record<string, string>> | 'reject'> {
  const archive = join(folder, `${name}.tar`);
  const exported = join(folder, `${name}-exported.tar`);
  await writeFile(archive, dockerArchive(name, layers));
  try {
    try {
      await tool('docker', ['load', '--quiet', '--input', archive]);
    } catch (error) {
      if (isDecantError(error, 'PROCESS_FAILED')) return 'reject';
      throw error;
    }
    await tool('docker', ['create', '--name', name, '--network', 'none', `${name}:latest`, 'x']);
    await tool('docker', ['export', '--output', exported, name]);
    await using scratch = await createScratch(folder);
    const { root } = await flattenTar(createReadStream(exported), { scratch, limits: { depth: MOST_LEVELS } });
    return Object.fromEntries(Object.entries(list(root)).filter(([path]) => !OF_THE_ENGINE.test(path)));
  } finally {
    await Promise.all([archive, exported].map((path) => rm(path, { force: true })));
  }
}

/** Removes containers and images of these names, as far as there are any. */
export async function removeLoaded(names: readonly string[]): Promise<void> {
  await tool('docker', ['rm', '--force', '--volumes', ...names], { okCodes: [0, 1] });
  await tool('docker', ['image', 'rm', '--force', ...names], { okCodes: [0, 1] });
}

/** An image as `docker save` wrote it up to version 24. */
function dockerArchive(name: string, layers: readonly Uint8Array[]): Uint8Array {
  const rootfs = { type: 'layers', diff_ids: layers.map(digestOf) };
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const config = Buffer.from(JSON.stringify({ os: 'linux', architecture, config: {}, rootfs }));
  const members = layers.map((data, index) => ({ path: `${index}/layer.tar`, data }));
  const Config = `${digestOf(config).slice('sha256:'.length)}.json`;
  const manifest = [{ Config, RepoTags: [`${name}:latest`], Layers: members.map(({ path }) => path) }];
  return makeTar([
    ...members,
    { path: Config, data: config },
    { path: 'manifest.json', data: JSON.stringify(manifest) },
  ]);
}
