import { readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

import { readDockerfile } from '@decant/context';
import { errnoOf } from '@decant/core';

import type { BuildRequest } from './driver.ts';

/**
 * Makes buildah and podman find base images where docker finds them, by a registries.conf(5) in `directory` that adds
 * to the user's. Where that names no registry for short names (Debian's default), `FROM org/app` would fail although
 * docker takes it from Docker Hub; local images still come first. A registry on this machine's loopback may speak
 * plain HTTP. Returns the variables that make the engine use it, none when nothing is to be added.
 */
export async function writeRegistriesConf(
  directory: string,
  request: Pick<BuildRequest, 'context' | 'buildArgs'>,
  env: NodeJS.ProcessEnv,
): Promise<Readonly<Record<string, string>>> {
  const given = env['CONTAINERS_REGISTRIES_CONF'] ?? env['REGISTRIES_CONFIG_PATH'];
  const own =
    given === undefined
      ? await textOf(join(env['HOME'] ?? homedir(), '.config/containers/registries.conf'))
      : undefined;
  const text = own ?? (await textOf(given ?? '/etc/containers/registries.conf')) ?? '';
  const knowsShortNames = given !== undefined || /^\s*(unqualified-search-registries\s*=|\[registries\.)/m.test(text);
  // The older form of the file has other tables and cannot take these.
  const loopback = /^\s*\[registries\./m.test(text) ? [] : loopbackRegistries(request);
  const added = loopback.filter((host) => !text.includes(`"${host}"`));
  if (knowsShortNames && added.length === 0) return {};
  const file = join(directory, 'registries.conf');
  const shortNames = knowsShortNames ? '' : 'unqualified-search-registries = ["docker.io"]\n';
  const tables = added.map((host) => `\n[[registry]]\nlocation = "${host}"\ninsecure = true\n`).join('');
  await writeFile(file, `${shortNames}${text}${tables}`);
  return { CONTAINERS_REGISTRIES_CONF: file };
}

/** Registries on this machine that the Dockerfile's images come from; docker allows plain HTTP with them. */
export function loopbackRegistries({ context, buildArgs }: Pick<BuildRequest, 'context' | 'buildArgs'>): string[] {
  const { bytes, displayPath: fileName } = context.dockerfile;
  const { stages } = readDockerfile(bytes, { fileName, buildArgs });
  const hosts = stages.flatMap(({ externalImages }) => externalImages.map((image) => image.split('/')[0]!));
  return [...new Set(hosts.filter((host) => isLoopback(host)))];
}

/** `localhost:PORT`, `127.….….…[:PORT]`, `[::1][:PORT]`. */
export function isLoopback(host: string): boolean {
  return /^(localhost:\d{1,5}|127(\.\d{1,3}){3}(:\d{1,5})?|\[::1\](:\d{1,5})?)$/.test(host);
}

async function textOf(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EACCES') return undefined;
    throw error;
  }
}
