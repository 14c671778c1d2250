import { writeFile } from 'node:fs/promises';

import { DecantError, errnoOf, quote } from '@decant/core';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { printable, say, stderr } from '../render/terminal.ts';

export interface RunOptions extends CommonOptions {
  readonly statsFile?: string;
  readonly trustFilesystem?: boolean;
}

export function runAction(ref: string, rest: readonly string[], options: RunOptions): Promise<void> {
  return invokeWired({ ...options, transient: true }, async ({ decant, progress, signal }) => {
    const command = commandOf(ref, rest);
    const { statsFile, trustFilesystem } = options;
    const { exitCode, notRun, stats } = await decant.images.run(
      { ref, command, trustFilesystem },
      { onEvent: progress.onEvent, signal },
    );
    progress.end();
    if (notRun !== undefined) say(`${stderr.style.red(stderr.style.bold('error:'))} ${printable(notRun)}`);
    if (statsFile !== undefined) await writeStats(statsFile, `${JSON.stringify(stats)}\n`);
    return exitCode;
  });
}

/**
 * The command in what follows the image: with or without a separator before it. A dash at its start without
 * a separator is taken for an option of ours in the wrong place.
 */
export function commandOf(ref: string, rest: readonly string[]): readonly string[] {
  const [first = ''] = rest;
  if (first === '--') return rest.slice(1);
  if (first.startsWith('-')) {
    throw new DecantError('USAGE', `The option ${quote(first)} stands after the image.`, {
      hint: `Options go before the image; what belongs to the command follows a separator: decant run ${ref} -- …`,
    });
  }
  return rest;
}

async function writeStats(file: string, text: string): Promise<void> {
  await writeFile(file, text).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOSPC') throw error;
    throw new DecantError('USAGE', `The stats file ${quote(file)} cannot be written: ${errnoOf(error) ?? 'unknown'}.`, {
      cause: error,
    });
  });
}
