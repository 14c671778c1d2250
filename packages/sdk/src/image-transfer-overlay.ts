import { readFile, realpath, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve, sep } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';
import { hostPlatform, readPlainArchive } from '@decant/oci';
import type { RootTree } from '@decant/publish';
import { flattenOverlay } from '@decant/rootfs';

import { archiveDirectory } from './image-transfer-root.ts';
import type { WorkOptions } from './session.ts';

/** Most directories of a chain; the kernel mounts 500. */
const MAX_LAYERS = 500;
/** Most bytes of a file `lower`: a short link, of 28 bytes and a colon, for each layer. */
const MAX_LOWER_BYTES = 64 * 1024;

/**
 * The root filesystem of a directory of Docker's storage driver overlay2 with all it lies on: `PATH/diff` above the
 * directories that `PATH/lower` names, `l/SHORT` each, topmost first. podman and buildah keep theirs in the same form.
 * Whiteouts are those of the kernel's overlay filesystem. Reading it takes the rights of the engine, mostly root's.
 * @throws OCI_SOURCE_INVALID when it is no such directory or cannot be read; PROCESS_MISSING
 */
export async function rootOfOverlay(
  path: string,
  options: WorkOptions & { readonly scratchDirectory: string },
): Promise<RootTree> {
  const directories = await chainOf(path);
  const { os, architecture } = hostPlatform();
  const file = join(options.scratchDirectory, 'overlay-layer.tar');
  const layers = directories.toReversed().map((directory, i) => ({
    name: `directory ${i + 1} of ${directories.length}, ${directory}`,
    async *open() {
      // One at a time: flattening has read one to its end before it opens the next.
      await archiveDirectory(directory, file, options);
      try {
        yield* readPlainArchive(file, { lend: true, signal: options.signal });
      } finally {
        await rm(file, { force: true });
      }
    },
  }));
  return { config: { os, architecture }, flatten: (flattening) => flattenOverlay(layers, flattening) };
}

/** The directories of a chain, topmost first. */
async function chainOf(path: string): Promise<readonly string[]> {
  const given = resolve(path);
  // What engines show of a container or an image is the directory `diff`.
  const layer = basename(given) === 'diff' ? dirname(given) : given;
  const home = await realpath(dirname(layer)).catch((error: unknown) => {
    throw invalid(path, `cannot be read: ${errnoOf(error) ?? 'unknown'}`, error);
  });
  const directories = [await layerDirectory(path, layer, 'diff', home)];
  const lower = await readLower(path, join(layer, 'lower'));
  for (const link of lower) {
    if (!/^l\/[A-Z0-9]{1,64}$/.test(link)) throw invalid(path, `names the layer ${quote(link)} below it`);
    directories.push(await layerDirectory(path, home, link, home));
  }
  return directories;
}

async function readLower(path: string, file: string): Promise<readonly string[]> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    // The bottom of a chain has none.
    if (errnoOf(error) === 'ENOENT') return '';
    throw invalid(path, `has a file lower that cannot be read: ${errnoOf(error) ?? 'unknown'}`, error);
  });
  const links = text.trim() === '' ? [] : text.trim().split(':');
  if (text.length > MAX_LOWER_BYTES || links.length >= MAX_LAYERS) throw invalid(path, 'has too many layers below it');
  return links;
}

/** A directory of layers, which must be one of the same storage. */
async function layerDirectory(path: string, base: string, name: string, home: string): Promise<string> {
  const at = join(base, name);
  try {
    const real = await realpath(at);
    if (!(await stat(real)).isDirectory()) throw invalid(path, `has something at ${quote(name)} that is no directory`);
    if (!real.startsWith(`${home}${sep}`)) throw invalid(path, `leads out of its storage at ${quote(name)}`);
    return real;
  } catch (error) {
    if (error instanceof DecantError) throw error;
    throw invalid(path, `has no directory ${quote(name)} that can be read: ${errnoOf(error) ?? 'unknown'}`, error);
  }
}

function invalid(path: string, what: string, cause?: unknown): DecantError {
  return new DecantError('OCI_SOURCE_INVALID', `${quote(path)} ${what}.`, {
    hint: 'Give a directory of overlay2, as docker image inspect -f {{.GraphDriver.Data.UpperDir}} shows it; as root.',
    cause,
  });
}
