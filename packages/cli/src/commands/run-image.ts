import { writeFile } from 'node:fs/promises';

import { DecantError, errnoOf, quote } from '@decant/core';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { printable, say, stderr } from '../render/terminal.ts';
import { foreground } from './agent-terminal.ts';
import { sandboxOf } from './bottle-request.ts';
import type { SandboxOptions } from './sandbox-options.ts';

export interface RunOptions extends CommonOptions, SandboxOptions {
  readonly statsFile?: string;
}

export function runAction(ref: string, rest: readonly string[], options: RunOptions): Promise<void> {
  return invokeWired({ ...options, transient: true }, async ({ decant, progress, signal }) => {
    const command = commandOf(ref, rest);
    const { statsFile, trustFilesystem } = options;
    const request = { ...sandboxOf(options), ref, command, trustFilesystem };
    const run = async () => {
      await using streams = foreground({ inheritStdin: true, onStart: () => progress.end() });
      return await decant.images.run({ ...request, ...streams.agent }, { onEvent: progress.onEvent, signal });
    };
    const { exitCode, notRun, stats } = await run();
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
  return afterSeparator(rest, `decant run ${ref}`, 'image');
}

/** The same for any command line that names `what` first. @throws USAGE */
export function afterSeparator(rest: readonly string[], line: string, what = 'bottle'): readonly string[] {
  const [first = ''] = rest;
  if (first === '--') return rest.slice(1);
  if (first.startsWith('-')) {
    throw new DecantError('USAGE', `The option ${quote(first)} stands after the ${what}.`, {
      hint: `Options go before the ${what}; what belongs to the command follows a separator: ${line} -- …`,
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
