import { readFile } from 'node:fs/promises';

import type { RegistryLogins } from '@decant/builder-local';
import { DecantError, errnoOf, quote } from '@decant/core';

const LARGEST = 1024 * 1024;

/**
 * The logins of a file in the form of docker's `config.json` (`auths`). @throws CONFIG_INVALID, without what the file
 * says.
 */
export async function readRegistryLogins(file: string): Promise<RegistryLogins> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw broken(file, `it cannot be read (${errnoOf(error) ?? 'unknown'})`);
  });
  if (text.length > LARGEST) throw broken(file, `it has more than ${LARGEST} bytes`);
  let auths: unknown;
  try {
    auths = (JSON.parse(text) as { auths?: unknown } | null)?.auths;
  } catch {
    // The parser's message may quote a secret.
    throw broken(file, 'it is no JSON');
  }
  if (typeof auths !== 'object' || auths === null) throw broken(file, 'it has no object "auths"');
  const entries = Object.entries(auths as Record<string, Record<string, unknown> | null>);
  return Object.fromEntries(entries.map(([key, entry]) => [hostOf(key), loginOf(entry ?? {}, key, file)]));
}

function hostOf(key: string): string {
  const host = key.replace(/^https?:\/\//, '').split('/')[0]!;
  return host === 'index.docker.io' || host === 'registry-1.docker.io' ? 'docker.io' : host;
}

function loginOf({ auth, username, password }: Record<string, unknown>, key: string, file: string) {
  if (typeof auth === 'string') {
    const text = Buffer.from(auth, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  }
  if (typeof username === 'string' && typeof password === 'string' && username !== '') return { username, password };
  throw broken(file, `it has no name and password for ${quote(key)}`);
}

function broken(file: string, why: string): DecantError {
  return new DecantError('CONFIG_INVALID', `The logins in ${quote(file)} cannot be used: ${why}.`, {
    hint: 'Give a file like the config.json that docker login writes without a credential store.',
  });
}
