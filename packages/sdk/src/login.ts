import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, errnoOf, imageListSchema, type Fetch } from '@decant/core';
import { createHttpClient } from '@decant/transport';

import type { DecantPaths } from './paths.ts';

/** A server that commands work with until told otherwise, and the key for it. */
export interface Login {
  readonly url: string;
  readonly key: string;
}

const FILE = 'login.json';

/** What was stored, or undefined. @throws CONFIG_INVALID for a file that cannot be read or is none of ours. */
export async function loadLogin(paths: DecantPaths): Promise<Login | undefined> {
  const file = join(paths.home, FILE);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    // A home that is no directory is reported by what uses it.
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw unusable(file, error);
  }
  try {
    const { url, key } = JSON.parse(text) as { url?: unknown; key?: unknown };
    if (typeof url === 'string' && typeof key === 'string') return { url, key };
  } catch (error) {
    throw unusable(file, error);
  }
  throw unusable(file);
}

function unusable(file: string, cause?: unknown): DecantError {
  return new DecantError('CONFIG_INVALID', `The stored login ${file} cannot be used.`, {
    hint: 'Log in again with: decant login URL',
    cause,
  });
}

/** Stores a login, readable by its owner only. */
export async function saveLogin(paths: DecantPaths, { url, key }: Login): Promise<void> {
  await mkdir(paths.home, { recursive: true, mode: 0o700 });
  const file = join(paths.home, FILE);
  const temporary = `${file}.${randomUUID()}`;
  const handle = await open(temporary, 'wx', 0o600);
  try {
    try {
      await handle.writeFile(`${JSON.stringify({ url, key })}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    // It holds the key, and nobody would look for it there.
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Forgets the login; returns whether there was one. */
export async function removeLogin(paths: DecantPaths): Promise<boolean> {
  try {
    await rm(join(paths.home, FILE));
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** Asks the server something that needs the key. @throws UNAUTHORIZED, HTTP_UNREACHABLE, HTTP_BODY_INVALID, … */
export async function checkLogin(
  { url, key }: Login,
  fetch: Fetch,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const client = createHttpClient({ baseUrl: url, fetch, token: key, timeoutMs: 15_000 });
  await client.json(imageListSchema, 'GET', '/v1/images', { query: { limit: 1 }, signal: options.signal });
}
