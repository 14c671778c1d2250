import { join } from 'node:path';

import { DecantError, isDecantError, quote, stage } from '@decant/core';
import { findProgram, run } from '@decant/core/node';

import type { EngineSource } from './import-source.ts';
import type { WorkOptions } from './session.ts';

interface Engine {
  readonly program: EngineSource['kind'];
  /** Succeeds when the engine has the image. */
  readonly has: (reference: string) => readonly string[];
  readonly save: (reference: string, file: string) => readonly string[];
}

const ENGINES: readonly Engine[] = [
  {
    program: 'docker',
    has: (reference) => ['image', 'inspect', '--format', '{{.Id}}', reference],
    save: (reference, file) => ['save', '--output', file, reference],
  },
  {
    program: 'podman',
    has: (reference) => ['image', 'exists', reference],
    save: (reference, file) => ['save', '--quiet', '--format', 'docker-archive', '--output', file, reference],
  },
  {
    program: 'buildah',
    has: (reference) => ['inspect', '--type', 'image', '--format', '{{.FromImageID}}', reference],
    save: (reference, file) => ['push', '--quiet', reference, `docker-archive:${file}`],
  },
];

const ASK_TIMEOUT_MS = 30_000;
const SAVE_TIMEOUT_MS = 60 * 60 * 1000;

/**
 * Saves an image of an engine of this machine into the scratch directory, and returns the archive's path. For `docker`
 * it is the first of docker, podman and buildah that has it, since what they build is called docker images; the others
 * are asked alone. Nothing is pulled.
 * @throws NOT_FOUND when none has it, NAME_INVALID, DISK_FULL, PROCESS_FAILED
 */
export async function saveFromEngine(
  { kind, reference }: EngineSource,
  options: WorkOptions & { readonly scratchDirectory: string },
): Promise<string> {
  const { scratchDirectory, onEvent, signal } = options;
  // A name or an id; never something that an engine would read as an option or a path.
  if (!/^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}$/.test(reference)) {
    throw new DecantError('NAME_INVALID', `Not an image of an engine: ${quote(reference)}.`, {
      hint: 'Write the name or id that docker images shows.',
    });
  }
  const asked: string[] = [];
  const engines = ENGINES.filter(({ program }) => kind === 'docker' || program === kind);
  for (const { program, has, save } of engines) {
    if ((await findProgram(program)) === undefined) continue;
    asked.push(program);
    if (!(await succeeds(program, has(reference), signal))) continue;
    const file = join(scratchDirectory, 'saved-image.tar');
    await stage(onEvent, 'fetch', async () => {
      await run(program, save(reference, file), { timeoutMs: SAVE_TIMEOUT_MS, signal });
    });
    return file;
  }
  throw new DecantError(
    'NOT_FOUND',
    asked.length === 0
      ? `There is no ${kind === 'docker' ? 'docker, podman or buildah' : kind} on this machine.`
      : `No engine of this machine has the image ${quote(reference)}; asked: ${asked.join(', ')}.`,
    { details: { reference, asked }, hint: 'Give the whole name, or take it from a registry with registry:REF.' },
  );
}

async function succeeds(program: string, args: readonly string[], signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await run(program, args, { timeoutMs: ASK_TIMEOUT_MS, signal });
    return true;
  } catch (error) {
    if (isDecantError(error, 'PROCESS_FAILED') || isDecantError(error, 'TIMEOUT')) return false;
    throw error;
  }
}
