import { findProgram, spooled } from '@decant/core/node';

import { DecantError } from '@decant/core';

/** A command line: the program, then its arguments. */
export type CommandLine = readonly [string, ...string[]];

/**
 * The command, ended by the kernel when this process dies, whatever way it dies. Where setpriv(1) is absent
 * (not Linux) the command as it is: a docker client then ends when it next writes to its closed pipe.
 */
export async function dyingWithUs(command: CommandLine): Promise<CommandLine> {
  const setpriv = process.platform === 'linux' ? await findProgram('setpriv') : undefined;
  return setpriv === undefined ? command : [setpriv, '--pdeathsig', 'KILL', ...command];
}

/**
 * The command as the first process of a pid namespace with mounts of its own: when it or this process dies, the
 * kernel ends all it started and drops all it mounted. `enter` is a command prefix that gives an ordinary user
 * the rights for it (for example `buildah unshare`).
 * @throws PROCESS_MISSING without util-linux.
 */
export async function inOwnNamespaces(command: CommandLine, enter: readonly string[] = []): Promise<CommandLine> {
  const [setpriv, unshare] = await Promise.all([findProgram('setpriv'), findProgram('unshare')]);
  if (setpriv === undefined || unshare === undefined) {
    throw new DecantError('PROCESS_MISSING', 'The programs setpriv and unshare are not installed.', {
      hint: 'Install util-linux.',
    });
  }
  const tied = [setpriv, '--pdeathsig', 'KILL'] as const;
  const isolated = [unshare, '--pid', '--fork', '--kill-child', '--mount-proc', ...command];
  return enter.length === 0 ? [...tied, ...isolated] : [...tied, ...enter, ...tied, ...isolated];
}

/** Its standard output goes through a pipe to cat(1), and its exit status is what the whole ends with. */
const PIPE = 'exec 4>&1; status=$({ { "$@" 4>&-; echo $? >&3; } | cat >&4; } 3>&1); exit "$status"';

/**
 * The command with a pipe as its standard output, for a program that opens `/dev/stdout`: Node gives its children a
 * socket there, which cannot be opened by name.
 */
export function throughPipe(command: CommandLine): Promise<CommandLine> {
  return dyingWithUs(['/bin/sh', '-c', PIPE, 'sh', ...command]);
}

/** The command with its output taken off its hands at once, as `spooled` does it; without perl(1) as it is. */
export async function withSpool(command: CommandLine): Promise<CommandLine> {
  const perl = await findProgram('perl');
  return perl === undefined ? command : dyingWithUs(spooled(perl, command));
}
