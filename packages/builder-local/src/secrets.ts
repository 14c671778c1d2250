import { open } from 'node:fs/promises';

import { DecantError, errnoOf, quote } from '@decant/core';

import type { BuildSecret } from './driver.ts';

/** BuildKit's own limit. */
const LARGEST_FILE = 500 * 1024;
/** What fits into one environment variable of Linux (128 KiB with its name), with room to spare. */
const LARGEST_VALUE = 100 * 1024;

/** Secrets as an engine is given them, and what must not be shown of them. */
export interface PreparedSecrets {
  /** Values of `--secret`. */
  readonly flags: readonly string[];
  /** Variables of the engine's process: a value never becomes an argument or a file of ours. */
  readonly env: Readonly<Record<string, string>>;
  /** Texts to mask in whatever is shown, longest first. */
  readonly masked: readonly string[];
}

/** Reads and checks the secrets of a build before any work. @throws USAGE */
export async function prepareSecrets(secrets: readonly BuildSecret[] = []): Promise<PreparedSecrets> {
  const flags: string[] = [];
  const env: Record<string, string> = {};
  const texts: string[] = [];
  const ids = new Set<string>();
  for (const [index, secret] of secrets.entries()) {
    const { id } = secret;
    if (id === '' || /[,"\n\0]/.test(id)) {
      throw new DecantError('USAGE', `Not an id of a secret: ${quote(id)}.`, {
        hint: 'Use letters, digits, dots, dashes and underscores.',
      });
    }
    if (ids.has(id)) throw new DecantError('USAGE', `The secret ${id} is given twice.`, { details: { id } });
    ids.add(id);
    if ('file' in secret) {
      flags.push(secretArgument(secret));
      texts.push(await readSecret(secret));
    } else {
      checkValue(secret);
      const variable = `DECANT_SECRET_${index}`;
      env[variable] = secret.value;
      flags.push(`id=${id},type=env,env=${variable}`);
      texts.push(secret.value);
    }
  }
  return { flags, env, masked: maskedTexts(texts) };
}

/** `id=…,src=…`; the engines split it at commas and not all of them know quotes. @throws USAGE */
export function secretArgument({ id, file }: { readonly id: string; readonly file: string }): string {
  if (/[,"\n]/.test(id) || /[,"\n]/.test(file)) {
    throw new DecantError('USAGE', 'The id or the file name of a secret has a comma, quote or line end.');
  }
  return `id=${id},src=${file}`;
}

function checkValue({ id, value }: { readonly id: string; readonly value: string }): void {
  if (value.includes('\0') || Buffer.byteLength(value) > LARGEST_VALUE) {
    throw new DecantError('USAGE', `The value of the secret ${id} has a NUL or more than ${LARGEST_VALUE} bytes.`, {
      hint: 'Give it as a file.',
      details: { id },
    });
  }
}

async function readSecret({ id, file }: { readonly id: string; readonly file: string }): Promise<string> {
  const buffer = Buffer.alloc(LARGEST_FILE + 1);
  let filled = 0;
  try {
    await using handle = await open(file);
    for (let more = 1; more > 0 && filled < buffer.length; filled += more) {
      ({ bytesRead: more } = await handle.read(buffer, filled, buffer.length - filled, filled));
    }
  } catch (error) {
    const why = errnoOf(error) ?? 'unknown';
    throw new DecantError('USAGE', `The file ${quote(file)} of the secret ${id} cannot be read: ${why}.`, {
      details: { id, file },
      cause: error,
    });
  }
  if (filled > LARGEST_FILE) {
    throw new DecantError('USAGE', `The secret ${id} has more than ${LARGEST_FILE} bytes.`, { details: { id, file } });
  }
  return buffer.toString('utf8', 0, filled);
}

/** Shorter lines of a secret are too common to be hidden; a whole secret is hidden from three characters on. */
const SHORTEST_LINE = 6;
const SHORTEST_SECRET = 3;

/** Each secret as a whole and, as output comes in lines, each of its longer lines. */
export function maskedTexts(secrets: readonly string[]): string[] {
  const texts = new Set<string>();
  for (const secret of secrets) {
    const whole = secret.trim();
    if (whole.length >= SHORTEST_SECRET) texts.add(whole);
    for (const line of whole.split(/\r?\n/)) if (line.trim().length >= SHORTEST_LINE) texts.add(line.trim());
  }
  return [...texts].sort((a, b) => b.length - a.length);
}

/** The text with every secret in it replaced. */
export function maskText(text: string, masked: readonly string[]): string {
  let shown = text;
  for (const secret of masked) if (shown.includes(secret)) shown = shown.replaceAll(secret, '***');
  return shown;
}
