import { lstat, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';

import type { RegistryLogins } from './driver.ts';

/** Key under which docker keeps Docker Hub. */
const HUB_KEY = 'https://index.docker.io/v1/';
const LARGEST_CONFIG = 1024 * 1024;

type Json = Readonly<Record<string, unknown>>;

/** @throws USAGE for a host or a name that no login can have. */
export function checkLogins(logins: RegistryLogins): void {
  for (const [host, { username, password }] of Object.entries(logins)) {
    if (!/^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(:\d{1,5})?$/.test(host)) {
      throw new DecantError('USAGE', `Not a registry: ${quote(host)}.`, { hint: 'Write HOST or HOST:PORT.' });
    }
    // The two are joined by a colon.
    if (username === '' || /[:\0\n]/.test(username) || /[\0\n]/.test(password)) {
      throw new DecantError('USAGE', `The login for ${host} has no name, or one that cannot be sent.`);
    }
  }
}

/**
 * A directory for DOCKER_CONFIG with these logins on top of the user's own configuration, whose contexts and
 * plug-ins stay in reach. Only this user can read it.
 */
export async function writeDockerLogins(
  directory: string,
  logins: RegistryLogins,
  env: NodeJS.ProcessEnv,
): Promise<{ readonly DOCKER_CONFIG: string }> {
  checkLogins(logins);
  const own = env['DOCKER_CONFIG'] || join(env['HOME'] || homedir(), '.docker');
  const config = await readJson(join(own, 'config.json'));
  const hosts = Object.keys(logins);
  const keyOf = (host: string) => (host === 'docker.io' ? HUB_KEY : host);
  await mkdir(directory, { mode: 0o700 });
  for (const name of ['cli-plugins', 'contexts', 'buildx', 'ca.pem', 'cert.pem', 'key.pem']) {
    const there = await lstat(join(own, name)).catch(() => undefined);
    if (there !== undefined) await symlink(join(own, name), join(directory, name));
  }
  await writeSecretly(join(directory, 'config.json'), {
    ...config,
    auths: { ...objectOf(config['auths']), ...authsOf(logins, keyOf) },
    // An empty helper makes the client read this file for the host, whatever store it uses for others.
    credHelpers: { ...objectOf(config['credHelpers']), ...Object.fromEntries(hosts.map((host) => [keyOf(host), ''])) },
  });
  return { DOCKER_CONFIG: directory };
}

/** A file for `--authfile` of buildah and podman, with these logins on top of those the user keeps. */
export async function writeAuthFile(file: string, logins: RegistryLogins, env: NodeJS.ProcessEnv): Promise<string> {
  checkLogins(logins);
  const home = env['HOME'] || homedir();
  const uid = process.getuid?.() ?? 0;
  const runtime = uid === 0 ? '/run/containers/0' : join(env['XDG_RUNTIME_DIR'] || `/run/user/${uid}`, 'containers');
  const candidates = [
    env['REGISTRY_AUTH_FILE'],
    join(runtime, 'auth.json'),
    join(home, '.config/containers/auth.json'),
    join(env['DOCKER_CONFIG'] || join(home, '.docker'), 'config.json'),
  ];
  const auths: Record<string, unknown> = {};
  const credHelpers: Record<string, unknown> = {};
  for (const candidate of candidates.toReversed()) {
    if (candidate === undefined || candidate === '') continue;
    const config = await readJson(candidate);
    Object.assign(auths, objectOf(config['auths']));
    Object.assign(credHelpers, objectOf(config['credHelpers']));
  }
  for (const host of Object.keys(logins)) delete credHelpers[host];
  Object.assign(
    auths,
    authsOf(logins, (host) => host),
  );
  await writeSecretly(file, { auths, credHelpers });
  return file;
}

function authsOf(logins: RegistryLogins, keyOf: (host: string) => string): Json {
  const entries = Object.entries(logins).map(([host, { username, password }]) => [
    keyOf(host),
    { auth: Buffer.from(`${username}:${password}`).toString('base64') },
  ]);
  return Object.fromEntries(entries) as Json;
}

async function writeSecretly(file: string, value: Json): Promise<void> {
  await writeFile(file, JSON.stringify(value), { mode: 0o600, flag: 'wx' });
}

/** What cannot be read does not count: these are the user's own logins, which this build may not need. */
async function readJson(file: string): Promise<Json> {
  try {
    const text = await readFile(file, 'utf8');
    return text.length > LARGEST_CONFIG ? {} : objectOf(JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError || errnoOf(error) !== undefined) return {};
    throw error;
  }
}

function objectOf(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}
