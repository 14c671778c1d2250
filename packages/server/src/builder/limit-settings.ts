import { DecantError, parseBytes, quote } from '@decant/core';

import type { BuilderLimits } from './limits.ts';

/** Limits by the names that operators write, and what a value is: bytes, seconds, or a number. */
const SETTINGS = {
  context: ['contextBytes', 'bytes'],
  files: ['contextFiles', 'number'],
  unpacked: ['unpackedBytes', 'bytes'],
  image: ['imageBytes', 'bytes'],
  log: ['logBytes', 'bytes'],
  memory: ['memoryBytes', 'bytes'],
  disk: ['diskBytes', 'bytes'],
  cpus: ['cpus', 'number'],
  'cpu-time': ['cpuMs', 'seconds'],
  processes: ['processes', 'number'],
  time: ['wallMs', 'seconds'],
  silence: ['silenceMs', 'seconds'],
  queue: ['queueMs', 'seconds'],
  queued: ['queued', 'number'],
  running: ['running', 'number'],
  'running-per-namespace': ['runningPerNamespace', 'number'],
  cache: ['cacheBytes', 'bytes'],
  keep: ['keepMs', 'seconds'],
} as const satisfies Record<string, readonly [keyof BuilderLimits, 'bytes' | 'seconds' | 'number']>;

type Settings<Member extends string> = Readonly<Record<string, readonly [Member, 'bytes' | 'seconds' | 'number']>>;

/**
 * Reads `NAME=VALUE` settings such as `memory=2G`, `time=3600` (seconds) or `running=4`; a later one wins.
 * @throws USAGE naming the setting.
 */
export function parseBuilderLimits(texts: readonly string[]): Partial<BuilderLimits> {
  return parseSettings(texts, SETTINGS, 'builds');
}

/** The same for any settings; `what` is what they are limits of. Seconds become milliseconds. @throws USAGE */
export function parseSettings<Member extends string>(
  texts: readonly string[],
  settings: Settings<Member>,
  what: string,
): Partial<Record<Member, number>> {
  const limits: Partial<Record<Member, number>> = {};
  for (const text of texts) {
    const [, name = '', value = ''] = /^([a-z-]+)=(.+)$/.exec(text) ?? [];
    const setting = Object.hasOwn(settings, name) ? settings[name] : undefined;
    if (setting === undefined) {
      throw new DecantError('USAGE', `Not a limit of ${what}: ${quote(text)}.`, {
        hint: `Write NAME=VALUE with one of: ${Object.keys(settings).join(', ')}.`,
      });
    }
    const [member, unit] = setting;
    limits[member] = unit === 'bytes' ? parseBytes(value) : numberOf(text, value) * (unit === 'seconds' ? 1000 : 1);
  }
  return limits;
}

function numberOf(text: string, value: string): number {
  const number = /^\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
  if (number > 0 && number <= Number.MAX_SAFE_INTEGER / 1000) return number;
  throw new DecantError('USAGE', `Not a positive number: ${quote(text)}.`);
}
