import { DecantError, quote } from '@decant/core';

type Environment = Readonly<Record<string, string | undefined>>;

/** Where builds run, as the environment has it. */
export interface BuildSettings {
  /** Straight with an engine of this machine, and no service in between. */
  readonly local: boolean;
  /** Architecture that images of a service must have; default: what the service builds for. */
  readonly architecture: 'amd64' | 'arm64' | undefined;
}

/**
 * Reads `DECANT_LOCAL_BUILD` and `TOGETHER_LOCAL_BUILD` (`1` means yes) and `DECANT_REMOTE_ARCHITECTURE`, else
 * `TOGETHER_REMOTE_ARCHITECTURE`.
 * @throws CONFIG_INVALID for an architecture other than amd64 and arm64.
 */
export function buildSettings(env: Environment = process.env): BuildSettings {
  const local = env['DECANT_LOCAL_BUILD'] === '1' || env['TOGETHER_LOCAL_BUILD'] === '1';
  for (const name of ['DECANT_REMOTE_ARCHITECTURE', 'TOGETHER_REMOTE_ARCHITECTURE']) {
    const architecture = env[name] ?? '';
    if (architecture === '') continue;
    if (architecture === 'amd64' || architecture === 'arm64') return { local, architecture };
    throw new DecantError('CONFIG_INVALID', `${name} is ${quote(architecture)}.`, {
      hint: 'Set it to amd64 or arm64, or leave it unset.',
    });
  }
  return { local, architecture: undefined };
}

/**
 * The image-builder beside an API: its host with `builder.` in place of `api.bartender.` or `api.`; a host that begins
 * with neither serves both.
 */
export function builderUrlOf(baseUrl: string): string {
  const url = new URL(baseUrl);
  const { hostname } = url;
  const prefix = ['api.bartender.', 'api.'].find((one) => hostname.startsWith(one));
  if (prefix === undefined) return baseUrl;
  url.hostname = `builder.${hostname.slice(prefix.length)}`;
  return url.href.replace(/\/$/, '');
}
