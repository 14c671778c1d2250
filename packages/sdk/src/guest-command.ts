import { resolve } from 'node:path/posix';

import { DecantError, type ImageConfig } from '@decant/core';

/** What is run: the image's entrypoint, then `command`, or the image's own when that is empty. @throws USAGE when nothing is left. */
export function argumentsOf(
  { Entrypoint = [], Cmd = [] }: NonNullable<ImageConfig['config']>,
  request: { readonly ref: string; readonly command: readonly string[] },
): string[] {
  const argv = [...Entrypoint, ...(request.command.length > 0 ? request.command : Cmd)];
  if (argv.length === 0) {
    throw new DecantError('USAGE', `${request.ref} has no command of its own.`, {
      hint: `Give one: decant run ${request.ref} -- CMD`,
    });
  }
  return argv;
}

/** The working directory, written as docker writes it: without `.`, `..`, doubled and trailing slashes. */
export function workingDirOf({ WorkingDir = '' }: NonNullable<ImageConfig['config']>): string | undefined {
  // One that is relative is refused by whoever runs it.
  return WorkingDir.startsWith('/') ? resolve(WorkingDir) : WorkingDir === '' ? undefined : WorkingDir;
}
