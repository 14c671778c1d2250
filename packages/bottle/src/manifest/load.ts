import { join } from 'node:path';

import { DecantError } from '@decant/core';

import { mergeManifests } from './merge.ts';
import { operatorDirectory, readTrusted } from './operator-directory.ts';
import { parseManifest } from './parse.ts';
import type { Manifest } from './schema.ts';

/** Manifests in one chain of `extends`. */
const LONGEST_CHAIN = 8;

export interface LoadManifestOptions {
  /** Default: {@link operatorDirectory}. */
  readonly directory?: string | undefined;
}

export interface LoadedManifest {
  /** With everything that it extends; `name` is the manifest's own name when no file says another. */
  readonly manifest: Manifest;
  /** Itself first, then what it extends. */
  readonly files: readonly string[];
}

/**
 * Loads a manifest of the operator by its name, and what it extends from the same folder.
 * @throws NAME_INVALID, NOT_FOUND, BOTTLE_MANIFEST_UNTRUSTED; CONFIG_INVALID with file, line and column.
 */
export async function loadManifest(name: string, options: LoadManifestOptions = {}): Promise<LoadedManifest> {
  const directory = options.directory ?? operatorDirectory();
  const names: string[] = [];
  const files: string[] = [];
  let result: Manifest | undefined;
  for (let next: string | undefined = name; next !== undefined;) {
    if (names.includes(next)) {
      throw new DecantError(
        'CONFIG_INVALID',
        `Manifests extend each other in a circle: ${[...names, next].join(' → ')}.`,
      );
    }
    names.push(next);
    if (names.length > LONGEST_CHAIN) {
      throw new DecantError(
        'CONFIG_INVALID',
        `${join(directory, name)}.yaml extends more than ${LONGEST_CHAIN - 1} others.`,
      );
    }
    const { file, text } = await readTrusted(directory, next);
    files.push(file);
    const manifest: Manifest = parseManifest(text, file);
    result = result === undefined ? manifest : mergeManifests(manifest, result);
    next = manifest.extends;
  }
  const { extends: _, ...manifest } = result ?? {};
  return { manifest: { ...manifest, name: manifest.name ?? name }, files };
}
