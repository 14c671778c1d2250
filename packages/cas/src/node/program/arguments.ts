import { createReadStream } from 'node:fs';
import { access } from 'node:fs/promises';

import { concatBytes, DecantError, errnoOf, parseBytes, quote } from '@decant/core';

import type { HashProvider } from '../../hash/hash-provider.ts';
import { DEFAULT_MANIFEST_LIMITS } from '../../manifest/manifest-layout.ts';
import { parseManifest, type Manifest } from '../../manifest/manifest.ts';
import { openPackDirectory, type PackDirectory } from '../pack-directory.ts';
import type { Invocation } from './main.ts';

/** @throws USAGE when the option is missing. */
export function required({ values }: Invocation, name: string): string {
  const value = values[name];
  if (typeof value === 'string' && value !== '') return value;
  throw new DecantError('USAGE', `The option --${name} is needed.`, { hint: 'Run decant-cas --help.' });
}

/** A whole number in `[least, most]`, or undefined without the option. @throws USAGE. */
export function wholeNumber(invocation: Invocation, name: string, least: number, most: number): number | undefined {
  const text = invocation.values[name];
  if (text === undefined) return undefined;
  const value = typeof text === 'string' && /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new DecantError('USAGE', `--${name} is a whole number from ${least} to ${most}, not ${quote(String(text))}.`);
}

export function byteCount({ values }: Invocation, name: string): number | undefined {
  const text = values[name];
  return typeof text === 'string' ? parseBytes(text) : undefined;
}

/** Reads no more of a file than a manifest may have. @throws CAS_FILE_UNREADABLE, CAS_MANIFEST_INVALID. */
export async function readManifest(file: string, hash: HashProvider): Promise<Manifest> {
  const pieces: Uint8Array[] = [];
  try {
    const stream: AsyncIterable<Uint8Array> = createReadStream(file, { end: DEFAULT_MANIFEST_LIMITS.maxBytes });
    for await (const piece of stream) pieces.push(piece);
  } catch (cause) {
    const reason = errnoOf(cause) === 'ENOENT' ? 'does not exist' : 'cannot be read';
    throw new DecantError('CAS_FILE_UNREADABLE', `The manifest ${quote(file)} ${reason}.`, { cause });
  }
  return parseManifest(concatBytes(pieces), hash);
}

/** Opens the store of `--store` for reading. @throws USAGE; CAS_FILE_UNREADABLE when there is none; CAS_PACK_INVALID. */
export async function openStore(invocation: Invocation, hash: HashProvider): Promise<PackDirectory> {
  const { signal } = invocation;
  const store = required(invocation, 'store');
  await access(store).catch((cause: unknown) => {
    throw new DecantError('CAS_FILE_UNREADABLE', `There is no store ${quote(store)}.`, { cause });
  });
  return openPackDirectory(store, { hash, signal });
}

/**
 * Writes to standard output, and is done when it has been taken: a reader may be slow, or gone, or a disk full.
 * @throws what the write failed with, EPIPE for a reader that is gone; the reason of the signal.
 */
export async function writeOut({ signal }: Invocation, data: Uint8Array | string): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    process.stdout.write(data, (error) => {
      signal.removeEventListener('abort', abort);
      if (error === null || error === undefined) resolve();
      else reject(error);
    });
  });
}

/** Writes a result: as one line of JSON, or as `name  value` lines for people. */
export function print(
  invocation: Invocation,
  facts: Readonly<Record<string, string | number>>,
  text: string,
): Promise<void> {
  return writeOut(invocation, invocation.values['json'] === true ? `${JSON.stringify(facts)}\n` : `${text}\n`);
}
