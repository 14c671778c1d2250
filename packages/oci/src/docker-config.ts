import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

import { DecantError, errnoOf, isDecantError, quote } from '@decant/core';
import { run } from '@decant/core/node';
import { z } from 'zod';

import { DOCKER_HUB } from './reference.ts';

/** What to prove oneself to a registry with. */
export type RegistryCredentials = (
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** An OAuth 2 refresh token, which docker calls an identity token. */
  | { readonly kind: 'refresh-token'; readonly refreshToken: string }
) & {
  /** What to do when they are not accepted; default: to log in with docker. */
  readonly hint?: string | undefined;
};

/** Gives the credentials for a registry (`HOST[:PORT]`, or `docker.io`), or undefined for none. */
export type CredentialLookup = (
  registry: string,
  options?: { readonly signal?: AbortSignal | undefined },
) => Promise<RegistryCredentials | undefined>;

const authSchema = z.looseObject({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
});
const configSchema = z.looseObject({
  auths: z.record(z.string(), authSchema).nullish(),
  credsStore: z.string().optional(),
  credHelpers: z.record(z.string(), z.string()).nullish(),
});
const helperSchema = z.looseObject({ Username: z.string(), Secret: z.string() });

const MAX_CONFIG_BYTES = 1024 * 1024;
const HELPER_TIMEOUT_MS = 30_000;
/** Key under which `docker login` keeps Docker Hub. */
const HUB_KEY = 'https://index.docker.io/v1/';
/** User name with which helpers mark a refresh token. */
const TOKEN_USER = '<token>';

/**
 * Credentials as `docker login` keeps them: `config.json` in `directory` (default: DOCKER_CONFIG, else
 * `~/.docker`) and the helper programs it names. Nothing is cached; without a file there are no credentials.
 * @throws CONFIG_INVALID for a broken file or a helper that fails, PROCESS_MISSING for a helper that is not there.
 */
export function dockerCredentials(options: { readonly directory?: string | undefined } = {}): CredentialLookup {
  return async (registry, { signal } = {}) => {
    const directory = options.directory ?? (process.env['DOCKER_CONFIG'] || join(homedir(), '.docker'));
    const config = await readConfig(join(directory, 'config.json'));
    if (config === undefined) return undefined;
    const helper = valueFor(config.credHelpers ?? {}, registry) ?? config.credsStore;
    if (helper !== undefined && helper !== '') {
      const found = await askHelper(helper, registry, signal);
      if (found !== undefined) return found;
    }
    const entry = valueFor(config.auths ?? {}, registry);
    return entry === undefined ? undefined : fromEntry(entry, registry);
  };
}

async function readConfig(path: string): Promise<z.infer<typeof configSchema> | undefined> {
  let text: Buffer;
  try {
    text = await readFile(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw broken(path, errnoOf(error) ?? 'unreadable', error);
  }
  if (text.length > MAX_CONFIG_BYTES) throw broken(path, `longer than ${MAX_CONFIG_BYTES} bytes`);
  let json: unknown;
  try {
    json = JSON.parse(text.toString('utf8'));
  } catch {
    // The parser's message may quote a secret.
    throw broken(path, 'not JSON');
  }
  const parsed = configSchema.safeParse(json);
  if (!parsed.success) throw broken(path, `wrong at ${parsed.error.issues[0]?.path.join('.') ?? 'its start'}`);
  return parsed.data;
}

/** Keys are hosts, or URLs of hosts with a path as old versions of docker wrote them. */
function valueFor<T>(record: Readonly<Record<string, T>>, registry: string): T | undefined {
  for (const key of keysOf(registry)) if (Object.hasOwn(record, key)) return record[key];
  for (const [key, value] of Object.entries(record)) {
    if (key.replace(/^https?:\/\//, '').split('/')[0] === registry) return value;
  }
  return undefined;
}

function keysOf(registry: string): string[] {
  return registry === DOCKER_HUB ? [HUB_KEY, 'index.docker.io', DOCKER_HUB, 'registry-1.docker.io'] : [registry];
}

function fromEntry(entry: z.infer<typeof authSchema>, registry: string): RegistryCredentials | undefined {
  const { identitytoken: refreshToken } = entry;
  if (refreshToken !== undefined && refreshToken !== '') return { kind: 'refresh-token', refreshToken };
  if (entry.auth !== undefined && entry.auth !== '') {
    const text = Buffer.from(entry.auth, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon < 1) {
      throw new DecantError(
        'CONFIG_INVALID',
        `The credentials for ${quote(registry)} in docker's configuration are malformed.`,
        {
          hint: `Run docker login ${registry} again.`,
        },
      );
    }
    // docker pads the text with NULs on some systems.
    return { kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') };
  }
  const { username = '', password = '' } = entry;
  return username === '' ? undefined : { kind: 'password', username, password };
}

async function askHelper(
  name: string,
  registry: string,
  signal: AbortSignal | undefined,
): Promise<RegistryCredentials | undefined> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) {
    throw new DecantError('CONFIG_INVALID', `${quote(name)} is no name of a docker credential helper.`);
  }
  const program = `docker-credential-${name}`;
  const input = `${registry === DOCKER_HUB ? HUB_KEY : registry}\n`;
  let output: Buffer;
  try {
    const options = { input, timeoutMs: HELPER_TIMEOUT_MS, keepBytes: 65_536, okCodes: [0, 1], signal };
    const { stdout, exitCode } = await run(program, ['get'], options);
    if (exitCode === 1) {
      // Helpers say this on standard output, with status 1, for a registry nobody logged in to.
      if (/credentials not found/i.test(stdout.toString('utf8'))) return undefined;
      throw helperFailed(program, registry);
    }
    output = stdout;
  } catch (error) {
    signal?.throwIfAborted();
    if (isDecantError(error, 'PROCESS_FAILED')) throw helperFailed(program, registry);
    throw error;
  }
  let answer: z.infer<typeof helperSchema>;
  try {
    answer = helperSchema.parse(JSON.parse(output.toString('utf8')));
  } catch {
    throw helperFailed(program, registry);
  }
  const { Username: username, Secret: secret } = answer;
  if (username === TOKEN_USER) return { kind: 'refresh-token', refreshToken: secret };
  return username === '' && secret === '' ? undefined : { kind: 'password', username, password: secret };
}

/** Without what the helper said: it may be a secret. */
function helperFailed(program: string, registry: string): DecantError {
  return new DecantError('CONFIG_INVALID', `${program} gave no credentials for ${quote(registry)}.`, {
    hint: `Run "echo ${registry} | ${program} get" to see why, or docker login again.`,
  });
}

function broken(path: string, why: string, cause?: unknown): DecantError {
  return new DecantError('CONFIG_INVALID', `Docker's configuration ${quote(path)} cannot be used: ${why}.`, { cause });
}
