import { resolve } from 'node:path';

import { DecantError, parseBytes, quote } from '@decant/core';
import type { BottleRequest } from '@decant/sdk';

import type { CommonOptions } from '../options.ts';
import { ttlOf } from './page-options.ts';
import type { SandboxOptions } from './sandbox-options.ts';

/** What was typed besides options: names, and the command after the separator. */
export interface CommandWords {
  readonly names: readonly string[];
  /** Undefined when there was no separator. */
  readonly command: readonly string[] | undefined;
}

export interface PlanOptions extends CommonOptions, SandboxOptions {
  readonly image?: string;
}

/** A bottle as options and words ask for it. @throws USAGE */
export function requestOf({ names, command }: CommandWords, options: PlanOptions): BottleRequest {
  const [name, ...more] = names;
  if (more.length > 0) {
    throw new DecantError('USAGE', `There is a word too many: ${quote(more[0]!)}.`, {
      hint: 'The command follows a separator: decant bottle run NAME -- CMD…',
    });
  }
  if (name === undefined && options.image === undefined) {
    throw new DecantError('USAGE', 'Neither a manifest nor an image is named.', {
      hint: 'Write: decant bottle run NAME, or decant bottle run --image REF -- CMD…',
    });
  }
  return {
    name,
    image: options.image,
    command: command === undefined || command.length === 0 ? undefined : command,
    ...sandboxOf(options),
  };
}

/** What the options say of the bottle, whatever it runs. @throws USAGE */
export function sandboxOf(options: SandboxOptions): Omit<BottleRequest, 'name' | 'image' | 'command'> {
  return {
    bottleName: options.name,
    backend: options.backend,
    allow: options.allow,
    environment: environmentOf(options.env),
    user: options.user,
    workingDir: options.workdir,
    mounts: options.mount?.map(mountOf),
    limits: {
      cpus: options.cpus === undefined ? undefined : numberOf('--cpus', options.cpus, /^\d{1,4}(\.\d{1,3})?$/),
      memoryBytes: options.memory === undefined ? undefined : parseBytes(options.memory),
      diskBytes: options.disk === undefined ? undefined : parseBytes(options.disk),
      processes: options.processes === undefined ? undefined : numberOf('--processes', options.processes, /^\d{1,7}$/),
      wallTimeMs: millisecondsOf('--time', options.time),
    },
  };
}

function numberOf(option: string, text: string, form: RegExp): number {
  const value = form.test(text) ? Number(text) : 0;
  if (value <= 0)
    throw new DecantError('USAGE', `Not a value for ${option}: ${quote(text)}.`, { hint: 'Give a number.' });
  return value;
}

/** Milliseconds of a time such as `90`, `90s`, `15m` or `12h`. @throws USAGE */
export function millisecondsOf(option: string, text: string | undefined): number | undefined {
  try {
    const seconds = ttlOf(text);
    return seconds === undefined ? undefined : seconds * 1000;
  } catch {
    throw new DecantError('USAGE', `Not a time for ${option}: ${quote(text ?? '')}.`, {
      hint: 'Give seconds, or a number with a unit such as 90s, 15m or 12h.',
    });
  }
}

/** Variables as `NAME=VALUE`, or `NAME` with the value it has here; of one name the last counts. @throws USAGE */
export function environmentOf(
  entries: readonly string[] = [],
  outer: Readonly<Record<string, string | undefined>> = process.env,
): Record<string, string> {
  const env: Record<string, string> = {};
  for (const entry of entries) {
    const at = entry.indexOf('=');
    const name = at < 0 ? entry : entry.slice(0, at);
    // oxlint-disable-next-line no-control-regex -- these are what must not be there
    if (!/^[^\u0000-\u001f\u007f=]+$/.test(name)) {
      throw new DecantError('USAGE', `Not a variable: ${quote(entry)}.`, { hint: 'Write NAME=VALUE, or NAME alone.' });
    }
    const value = at < 0 ? outer[name] : entry.slice(at + 1);
    if (value === undefined) {
      throw new DecantError('USAGE', `The variable ${quote(name)} is not set here.`, {
        hint: `Set it, or write ${name}=VALUE.`,
      });
    }
    env[name] = value;
  }
  return env;
}

function mountOf(text: string): NonNullable<BottleRequest['mounts']>[number] {
  const [, type, source, target] = /^(read-only|read-write|overlay):(.+):(\/[^:]*)$/s.exec(text) ?? [];
  if (type === undefined || source === undefined || target === undefined) {
    throw new DecantError('USAGE', `Not a mount: ${quote(text)}.`, {
      hint: 'Write TYPE:SOURCE:TARGET with the type read-only, read-write or overlay and an absolute target.',
    });
  }
  return { type: type as 'read-only' | 'read-write' | 'overlay', source: resolve(source), target };
}
