import type { ImageConfig } from './wire/index.ts';

/** The image's environment; of a name that occurs twice the last value counts, and an entry without a name is left out. */
export function imageEnvironment({ Env = [] }: NonNullable<ImageConfig['config']>): Record<string, string> {
  const env: Record<string, string> = {};
  for (const entry of Env) {
    const at = entry.indexOf('=');
    if (at > 0) env[entry.slice(0, at)] = entry.slice(at + 1);
  }
  return env;
}
