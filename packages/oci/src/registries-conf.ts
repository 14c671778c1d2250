import { readdir, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

import { DecantError, errnoOf, quote } from '@decant/core';
import { parse } from 'smol-toml';
import { z } from 'zod';

import { formatReference, isHost, isRepositoryName, type ImageReference } from './reference.ts';

/**
 * Where an image is to be had: references to ask for in this order, the last one being the registry itself.
 * @throws FORBIDDEN when the registry is blocked
 */
export type MirrorLookup = (reference: ImageReference) => Promise<readonly ImageReference[]>;

type Environment = Readonly<Record<string, string | undefined>>;

const mirrorSchema = z.looseObject({
  location: z.string(),
  'pull-from-mirror': z.enum(['all', 'digest-only', 'tag-only', '']).optional(),
});
const registrySchema = z.looseObject({
  prefix: z.string().optional(),
  location: z.string().optional(),
  blocked: z.boolean().optional(),
  'mirror-by-digest-only': z.boolean().optional(),
  mirror: z.array(mirrorSchema).optional(),
});
const fileSchema = z.looseObject({ registry: z.array(registrySchema).optional() });

interface Rule {
  /** `HOST[:PORT][/PATH]`, or `*.DOMAIN`. */
  readonly prefix: string;
  readonly location: string;
  readonly blocked: boolean;
  readonly mirrors: readonly { readonly location: string; readonly only: 'digest' | 'tag' | undefined }[];
  readonly file: string;
}

const MAX_FILE_BYTES = 1024 * 1024;
const MAX_FILES = 100;
const SYSTEM_DIRECTORY = '/etc/containers';

/**
 * Mirrors, other locations and blocked registries as `registries.conf` of podman, buildah and skopeo has them, version 2
 * (containers-registries.conf(5)): the file that CONTAINERS_REGISTRIES_CONF names; else the user's or else the system's
 * file, and the drop-in files of both. Read are `prefix`, `location`, `blocked`, `mirror-by-digest-only` and of mirrors
 * `location` and `pull-from-mirror`. `insecure` changes nothing: plain http is for this machine only.
 * @throws CONFIG_INVALID for a broken file.
 */
export function containersMirrors(options: { readonly env?: Environment | undefined } = {}): MirrorLookup {
  return async (reference) => placesOf(reference, await readRules(options.env ?? process.env));
}

/** The places of a reference by the rule with the longest prefix. */
function placesOf(reference: ImageReference, rules: readonly Rule[]): readonly ImageReference[] {
  const text = formatReference(reference);
  let best: Rule | undefined;
  for (const rule of rules) {
    // Of equal prefixes the later file's counts.
    if (matchedLength(rule, text) > 0 && rule.prefix.length >= (best?.prefix.length ?? 0)) best = rule;
  }
  if (best === undefined) return [reference];
  if (best.blocked) {
    throw new DecantError('FORBIDDEN', `${reference.registry} is blocked for ${text} in ${quote(best.file)}.`, {
      details: { registry: reference.registry, file: best.file },
    });
  }
  const { mirrors, location, file } = best;
  const rest = text.slice(matchedLength(best, text));
  const kind = reference.digest === undefined ? 'tag' : 'digest';
  const usable = mirrors.filter(({ only }) => only === undefined || only === kind);
  const places = usable.map((mirror) => placeAt(mirror.location, rest, reference, file));
  return [...places, location === '' ? reference : placeAt(location, rest, reference, file)];
}

/** How much of a reference a prefix stands for; 0 when it does not match. */
function matchedLength({ prefix }: Rule, text: string): number {
  if (prefix.startsWith('*.')) {
    const host = text.split('/')[0]!;
    const suffix = prefix.slice(1);
    const at = host.lastIndexOf(suffix);
    return at > 0 && /^(?::\d+)?$/.test(host.slice(at + suffix.length)) ? host.length : 0;
  }
  if (!text.startsWith(prefix)) return 0;
  // After a host alone a colon begins a port, which makes it another registry.
  const end = prefix.includes('/') ? /^(?:[/:@]|$)/ : /^\//;
  return end.test(text.slice(prefix.length)) ? prefix.length : 0;
}

/** A reference with the beginning of its name replaced. */
function placeAt(location: string, rest: string, { tag, digest }: ImageReference, file: string): ImageReference {
  const name = `${location}${rest}`.replace(/@.*$/s, '');
  const slash = name.indexOf('/');
  const registry = name.slice(0, slash);
  const path = name.slice(slash + 1);
  const repository = tag === undefined || !path.endsWith(`:${tag}`) ? path : path.slice(0, -tag.length - 1);
  if (slash < 0 || !isHost(registry) || !isRepositoryName(repository)) {
    throw broken(file, `the location ${quote(location)} makes no name of ${quote(rest)}`);
  }
  return { registry, repository, tag, digest };
}

async function readRules(env: Environment): Promise<readonly Rule[]> {
  const given = env['CONTAINERS_REGISTRIES_CONF'] ?? '';
  if (given !== '') {
    const rules = await readRulesOf(given);
    if (rules === undefined) throw broken(given, 'there is no such file');
    return rules;
  }
  const user = join(env['XDG_CONFIG_HOME'] || join(env['HOME'] || homedir(), '.config'), 'containers');
  const main =
    (await readRulesOf(join(user, 'registries.conf'))) ??
    (await readRulesOf(join(SYSTEM_DIRECTORY, 'registries.conf'))) ??
    [];
  const rules = [...main];
  for (const directory of [SYSTEM_DIRECTORY, user]) {
    for (const file of await dropIns(join(directory, 'registries.conf.d'))) {
      rules.push(...((await readRulesOf(file)) ?? []));
    }
  }
  return rules;
}

async function dropIns(directory: string): Promise<readonly string[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return [];
    throw broken(directory, errnoOf(error) ?? 'unreadable', error);
  });
  const files = names.filter((name) => name.endsWith('.conf')).sort();
  if (files.length > MAX_FILES) throw broken(directory, `more than ${MAX_FILES} files`);
  return files.map((name) => join(directory, name));
}

/** The rules of a file; undefined when there is none. */
async function readRulesOf(file: string): Promise<readonly Rule[] | undefined> {
  let text: string;
  try {
    const bytes = await readFile(file);
    if (bytes.length > MAX_FILE_BYTES) throw broken(file, `longer than ${MAX_FILE_BYTES} bytes`);
    text = bytes.toString('utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error instanceof DecantError ? error : broken(file, errnoOf(error) ?? 'unreadable', error);
  }
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    const where = error instanceof Error ? /(line \d+)/.exec(error.message)?.[1] : undefined;
    const line = where ?? (error as { line?: number }).line;
    throw broken(
      file,
      `not TOML${line === undefined ? '' : ` at ${typeof line === 'number' ? `line ${line}` : line}`}`,
      error,
    );
  }
  const parsed = fileSchema.safeParse(document);
  if (!parsed.success) throw broken(file, `wrong at ${parsed.error.issues[0]?.path.join('.') ?? 'its start'}`);
  return (parsed.data.registry ?? []).map((entry) => ruleOf(entry, file));
}

function ruleOf(entry: z.infer<typeof registrySchema>, file: string): Rule {
  const { location = '', blocked = false } = entry;
  const prefix = entry.prefix === undefined || entry.prefix === '' ? location : entry.prefix;
  if (prefix === '') throw broken(file, 'a [[registry]] has neither prefix nor location');
  const byDigest = entry['mirror-by-digest-only'] === true;
  const mirrors = (entry.mirror ?? []).map((mirror) => {
    const pull = mirror['pull-from-mirror'] ?? '';
    return {
      location: checkLocation(mirror.location, file),
      only:
        byDigest || pull === 'digest-only' ? ('digest' as const) : pull === 'tag-only' ? ('tag' as const) : undefined,
    };
  });
  return {
    prefix: prefix.startsWith('*.') ? prefix : checkLocation(prefix, file),
    location: location === '' || location === prefix ? '' : checkLocation(location, file),
    blocked,
    mirrors,
    file,
  };
}

/** `HOST[:PORT][/PATH]` without a scheme. */
function checkLocation(text: string, file: string): string {
  const location = text.replace(/\/+$/, '');
  const host = location.split('/')[0]!;
  if (!isHost(host)) throw broken(file, `not a location: ${quote(text)}`);
  return location;
}

function broken(file: string, why: string, cause?: unknown): DecantError {
  return new DecantError('CONFIG_INVALID', `The configuration of registries ${quote(file)} cannot be used: ${why}.`, {
    hint: 'Correct it, or name another file in CONTAINERS_REGISTRIES_CONF.',
    cause,
  });
}
