import { readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

import { errnoOf } from '@decant/core';

/**
 * Where containers-registries.conf(5) names no registry for short names (Debian's default), `FROM org/app` would fail
 * although docker takes it from Docker Hub. Then the same configuration with Docker Hub for short names is written
 * into `directory`; local images still come first. Returns the variables that make buildah use it.
 */
export async function dockerHubForShortNames(
  directory: string,
  env: NodeJS.ProcessEnv,
): Promise<Readonly<Record<string, string>>> {
  if (env['CONTAINERS_REGISTRIES_CONF'] !== undefined || env['REGISTRIES_CONFIG_PATH'] !== undefined) return {};
  const own = await textOf(join(env['HOME'] ?? homedir(), '.config/containers/registries.conf'));
  const text = own ?? (await textOf('/etc/containers/registries.conf')) ?? '';
  if (/^\s*(unqualified-search-registries\s*=|\[registries\.)/m.test(text)) return {};
  const file = join(directory, 'registries.conf');
  await writeFile(file, `unqualified-search-registries = ["docker.io"]\n${text}`);
  return { CONTAINERS_REGISTRIES_CONF: file };
}

async function textOf(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EACCES') return undefined;
    throw error;
  }
}
