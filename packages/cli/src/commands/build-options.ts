import { DecantError, quote } from '@decant/core';
import { readRegistryLogins, type CreateImageRequest, type EngineRequest } from '@decant/sdk';

type Environment = Readonly<Record<string, string | undefined>>;

/** Options of commands that build with an engine. */
export interface EngineOptions {
  readonly builder?: string;
  readonly secret?: readonly string[];
  readonly network?: string;
  /** False for `--no-cache`. */
  readonly cache?: string | false;
  readonly registryAuth?: string;
}

const BUILDERS = ['auto', 'docker', 'docker-buildkit', 'buildah', 'podman'] as const;
const NETWORKS = ['default', 'none', 'host'] as const;
const CACHES = ['use', 'ignore', 'refresh'] as const;

/** @throws USAGE, CONFIG_INVALID */
export async function buildOptionsOf(
  options: EngineOptions,
  env: Environment = process.env,
): Promise<Pick<CreateImageRequest, 'cache' | 'engine'>> {
  const { builder, secret, network, cache, registryAuth } = options;
  return {
    cache: cache === false ? 'ignore' : oneOf(CACHES, '--cache', cache),
    engine: {
      builder: oneOf(BUILDERS, '--builder', builder),
      secrets: secretsOf(secret, env),
      network: oneOf(NETWORKS, '--network', network),
      auth: registryAuth === undefined ? undefined : await readRegistryLogins(registryAuth),
    },
  };
}

function oneOf<T extends string>(known: readonly T[], option: string, text: string | undefined): T | undefined {
  if (text === undefined) return undefined;
  const found = known.find((name) => name === text);
  if (found !== undefined) return found;
  throw new DecantError('USAGE', `Not a value of ${option}: ${quote(text)}.`, { hint: `Use ${known.join(', ')}.` });
}

type Secret = NonNullable<EngineRequest['secrets']>[number];

/**
 * `id=ID,src=FILE`, `id=ID,env=VARIABLE` or `id=ID` (the variable of that name, else the file), as docker has it.
 * @throws USAGE for anything else, and for a variable that is not set.
 */
export function secretsOf(specs: readonly string[] = [], env: Environment = process.env): Secret[] {
  return specs.map((spec) => {
    const fields = new Map(spec.split(',').map((part) => splitOnce(part)));
    const id = fields.get('id') ?? '';
    const file = fields.get('src') ?? fields.get('source');
    const variable = fields.get('env');
    const unknown = [...fields.keys()].filter((name) => !['id', 'src', 'source', 'env', 'type'].includes(name));
    if (id === '' || unknown.length > 0 || (file !== undefined && variable !== undefined)) {
      throw new DecantError('USAGE', `Not a secret: ${quote(spec)}.`, {
        hint: 'Write --secret id=ID,src=FILE or --secret id=ID,env=VARIABLE.',
      });
    }
    if (file !== undefined) return { id, file };
    const value = env[variable ?? id];
    if (value !== undefined) return { id, value };
    if (variable === undefined) return { id, file: id };
    throw new DecantError('USAGE', `The variable ${quote(variable)} of the secret ${id} is not set.`, {
      details: { id, variable },
    });
  });
}

function splitOnce(part: string): [string, string] {
  const at = part.indexOf('=');
  return at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
}
