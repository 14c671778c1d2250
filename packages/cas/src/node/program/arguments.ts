import { readFile } from 'node:fs/promises';

import { DecantError, errnoOf, parseBytes, quote } from '@decant/core';

import type { HashProvider } from '../../hash/hash-provider.ts';
import { parseManifest, type Manifest } from '../../manifest/manifest.ts';
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

/** @throws CAS_FILE_UNREADABLE, CAS_MANIFEST_INVALID. */
export async function readManifest(file: string, hash: HashProvider): Promise<Manifest> {
  const bytes = await readFile(file).catch((cause: unknown) => {
    const reason = errnoOf(cause) === 'ENOENT' ? 'does not exist' : 'cannot be read';
    throw new DecantError('CAS_FILE_UNREADABLE', `The manifest ${quote(file)} ${reason}.`, { cause });
  });
  return parseManifest(bytes, hash);
}

/** Writes a result: as one line of JSON, or as `name  value` lines for people. */
export function print(invocation: Invocation, facts: Readonly<Record<string, string | number>>, text: string): void {
  process.stdout.write(invocation.values['json'] === true ? `${JSON.stringify(facts)}\n` : `${text}\n`);
}
