import { constants, type Stats } from 'node:fs';
import { open, readdir, realpath, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';

import { MAX_MANIFEST_BYTES } from './parse.ts';
import { manifestNameSchema } from './schema.ts';

const SUFFIX = '.yaml';

/**
 * Where the operator keeps manifests: `$DECANT_HOME/bottles.d` when that variable is set, else
 * `$XDG_CONFIG_HOME/decant/bottles` (by default `~/.config/decant/bottles`). Never a folder that something else than the
 * operator's environment names, such as the working directory.
 * @throws CONFIG_INVALID when a variable names no absolute path.
 */
export function operatorDirectory(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const absolute = (name: string, value: string) => {
    if (isAbsolute(value)) return value;
    throw new DecantError('CONFIG_INVALID', `${name} is ${quote(value)}, which is no absolute path.`, {
      hint: 'Manifests of bottles are never looked for below the working directory.',
    });
  };
  const home = env['DECANT_HOME'];
  if (home !== undefined && home !== '') return join(absolute('DECANT_HOME', home), 'bottles.d');
  const config = env['XDG_CONFIG_HOME'];
  if (config !== undefined && config !== '') return join(absolute('XDG_CONFIG_HOME', config), 'decant', 'bottles');
  return join(absolute('HOME', env['HOME'] ?? homedir()), '.config', 'decant', 'bottles');
}

/** Names of the manifests in a folder, sorted; none when there is no such folder. */
export async function listManifests(directory: string): Promise<readonly string[]> {
  try {
    const names = (await readdir(directory)).filter((name) => name.endsWith(SUFFIX));
    return names
      .map((name) => name.slice(0, -SUFFIX.length))
      .filter((name) => manifestNameSchema.safeParse(name).success)
      .sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/**
 * Reads a manifest that only the operator can have written: the file and every folder above it belong to the user or root
 * and nobody else may write to them (a folder with the sticky bit, such as `/tmp`, may stand above); a link must not lead
 * out of the operator's folder. What is judged is the file that is then read.
 * @throws NAME_INVALID, NOT_FOUND, BOTTLE_MANIFEST_UNTRUSTED, CONFIG_INVALID when it is too large.
 */
export async function readTrusted(directory: string, name: string): Promise<{ file: string; text: string }> {
  if (!manifestNameSchema.safeParse(name).success) {
    throw new DecantError('NAME_INVALID', `${quote(name)} is not the name of a manifest.`, {
      hint: `Manifests are called by name, not by path, and lie in ${directory}.`,
    });
  }
  const missing = () =>
    new DecantError('NOT_FOUND', `There is no manifest ${name} in ${directory}.`, {
      hint: `Write ${join(directory, name + SUFFIX)}, or choose another one.`,
    });
  let folder: string;
  let file: string;
  try {
    folder = await realpath(directory);
    file = await realpath(join(folder, name + SUFFIX));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw missing();
    throw untrusted(join(directory, name + SUFFIX), 'its links cannot be followed');
  }
  if (!file.startsWith(`${folder}/`))
    throw untrusted(join(folder, name + SUFFIX), 'it is a link that leads out of its folder');
  for (let above = dirname(file); ; above = dirname(above)) {
    judge(above, await stat(above));
    if (above === dirname(above)) break;
  }
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error: unknown) => {
      if (errnoOf(error) === 'ENOENT') throw missing();
      if (errnoOf(error) === 'ELOOP') throw untrusted(file, 'it became a link');
      throw error;
    },
  );
  try {
    const info = await handle.stat();
    if (!info.isFile()) throw untrusted(file, 'it is no file');
    judge(file, info);
    const bytes = Buffer.alloc(MAX_MANIFEST_BYTES + 1);
    let filled = 0;
    while (filled < bytes.length) {
      const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    if (filled > MAX_MANIFEST_BYTES) {
      throw new DecantError('CONFIG_INVALID', `${file} has more than ${MAX_MANIFEST_BYTES} bytes.`);
    }
    return { file, text: new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, filled)) };
  } catch (error) {
    if (error instanceof TypeError) throw new DecantError('CONFIG_INVALID', `${file} is not UTF-8.`, { cause: error });
    throw error;
  } finally {
    await handle.close();
  }
}

function judge(path: string, { uid, mode }: Stats): void {
  const own = process.geteuid?.() ?? 0;
  if (uid !== 0 && uid !== own) throw untrusted(path, `it belongs to user ${uid}`);
  const isSticky = (mode & constants.S_IFMT) === constants.S_IFDIR && (mode & 0o1000) !== 0;
  if ((mode & 0o022) !== 0 && !isSticky) throw untrusted(path, 'others may write to it');
}

function untrusted(path: string, why: string): DecantError {
  return new DecantError('BOTTLE_MANIFEST_UNTRUSTED', `${path} is not trusted: ${why}.`, {
    hint: 'Manifests count only when they and the folders above belong to you or root, and chmod go-w was done on them.',
  });
}
