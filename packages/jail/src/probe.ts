import { access, constants, readFile } from 'node:fs/promises';

import { DecantError, isDecantError } from '@decant/core';
import { findProgram, isAccessible, run } from '@decant/core/node';

import { CONTROL_GROUPS_HINT, missingControllers } from './cgroup.ts';
import { PERL_MOUNTS } from './perl-mounts.ts';

export interface JailCheck {
  readonly name: string;
  readonly ok: boolean;
  /** Why not, as one sentence. */
  readonly why?: string;
  /** How to mend it, as one sentence. */
  readonly mend?: string;
}

export interface JailReport {
  /** Whether {@link openSandbox} can stream an image here, now, as this user. It needs no `control groups`; limits do. */
  readonly ok: boolean;
  readonly checks: readonly JailCheck[];
}

interface Program {
  readonly name: string;
  readonly debian: string;
}

const PROGRAMS: readonly Program[] = [
  { name: 'bwrap', debian: 'bubblewrap' },
  { name: 'setpriv', debian: 'util-linux' },
  { name: 'unshare', debian: 'util-linux' },
  { name: 'nsenter', debian: 'util-linux' },
  { name: 'prlimit', debian: 'util-linux' },
  { name: 'perl', debian: 'perl-base' },
];
const NBDFUSE: Program = { name: 'nbdfuse', debian: 'libnbd-bin and fuse3' };

/** What this machine can do of what {@link openSandbox} and {@link runConfinedTool} need. Changes nothing on it. */
export async function probeJail(options: { readonly signal?: AbortSignal | undefined } = {}): Promise<JailReport> {
  const { signal } = options;
  signal?.throwIfAborted();
  const isRoot = process.getuid?.() === 0;
  const required: JailCheck[] = [];
  required.push(
    process.platform === 'linux'
      ? { name: 'linux', ok: true }
      : { name: 'linux', ok: false, why: `This is ${process.platform}.`, mend: 'Use a Linux machine.' },
  );
  if (process.platform !== 'linux') return { ok: false, checks: required };
  required.push(
    isRoot
      ? { name: 'root', ok: true }
      : { name: 'root', ok: false, why: 'Mounting an image needs root.', mend: 'Run the command as root.' },
  );
  for (const program of [...PROGRAMS, NBDFUSE]) required.push(await programCheck(program));
  required.push(await userNamespaces(signal), await fuse(), await filesystem('erofs'), await filesystem('overlay'));
  const have = (name: string) => required.some((check) => check.name === name && check.ok);
  if (isRoot && have('perl') && have('unshare') && have('user namespaces')) required.push(await idmap(signal));
  const ok = required.every((check) => check.ok);
  return { ok, checks: [...required, await controlGroups()] };
}

/** What was found to be there before: programs and filesystems do not go away while a process runs. */
const found = new Set<string>();

/** @throws JAIL_UNAVAILABLE when the quick checks already say that an image cannot be run. */
export async function requireRunner(filesystemName: string, overNbd: boolean): Promise<void> {
  const key = `${filesystemName} ${overNbd}`;
  if (found.has(key)) return;
  const instead =
    'Without it, `decant image export NAME --raw FILE` writes the image to a file and ' +
    '`decant image serve NAME --socket PATH` offers it to a virtual machine.';
  if (process.platform !== 'linux') {
    throw new DecantError('JAIL_UNAVAILABLE', `Running an image needs Linux; this is ${process.platform}.`, {
      hint: instead,
    });
  }
  if (process.getuid?.() !== 0) {
    throw new DecantError('JAIL_UNAVAILABLE', 'Running an image needs root, because it mounts the image.', {
      hint: `Run the command as root. ${instead}`,
    });
  }
  const checks = await Promise.all((overNbd ? [...PROGRAMS, NBDFUSE] : PROGRAMS).map(programCheck));
  if (overNbd) checks.push(await fuse());
  checks.push(await filesystem(filesystemName), await filesystem('overlay'));
  const missing = checks.filter((check) => !check.ok);
  if (missing.length === 0) {
    found.add(key);
    return;
  }
  throw new DecantError('JAIL_UNAVAILABLE', `This machine cannot run an image: ${missing[0]!.why}`, {
    hint: `${[...new Set(missing.map((check) => check.mend))].join(' ')} ${instead}`,
    details: { missing },
  });
}

/** Whether write layers can be volumes of their own here, which takes mkfs.ext4 and loop devices. */
export async function canHaveVolumes(): Promise<boolean> {
  const loops = await isAccessible('/dev/loop-control', constants.R_OK | constants.W_OK);
  return loops && (await findProgram('mkfs.ext4')) !== undefined;
}

async function programCheck({ name, debian }: Program): Promise<JailCheck> {
  if ((await findProgram(name)) !== undefined) return { name, ok: true };
  const mend = `Install ${name} (Debian package: ${debian}).`;
  return { name, ok: false, why: `The program ${name} is not installed.`, mend };
}

async function userNamespaces(signal: AbortSignal | undefined): Promise<JailCheck> {
  const name = 'user namespaces';
  const why = await reasonOfFailure('unshare', ['--user', '--', 'true'], signal);
  if (why === undefined) return { name, ok: true };
  const mend = 'Set the sysctl user.max_user_namespaces above 0 (in a container, the host decides).';
  return { name, ok: false, why, mend };
}

async function fuse(): Promise<JailCheck> {
  const name = '/dev/fuse';
  try {
    await access('/dev/fuse', constants.R_OK | constants.W_OK);
    return { name, ok: true };
  } catch {
    const mend = 'Load the kernel module fuse; in a container, pass --device /dev/fuse.';
    return { name, ok: false, why: '/dev/fuse is missing or cannot be opened.', mend };
  }
}

async function filesystem(type: string): Promise<JailCheck> {
  const name = `${type} in the kernel`;
  const known = async () =>
    (await readFile('/proc/filesystems', 'utf8')).split('\n').some((line) => line.endsWith(`\t${type}`));
  if (await known()) return { name, ok: true };
  if (
    process.getuid?.() === 0 &&
    (await reasonOfFailure('modprobe', [type], undefined)) === undefined &&
    (await known())
  )
    return { name, ok: true };
  const mend = `Use a kernel with ${type}, or load its module: modprobe ${type}.`;
  return { name, ok: false, why: `The kernel does not have the filesystem ${type}.`, mend };
}

const IDMAP_TEST = String.raw`
use strict; use warnings; no warnings 'exec'; use POSIX ();
${PERL_MOUNTS}
system('mount', '-t', 'tmpfs', 'decant', '/tmp') == 0 or die "tmpfs: mount failed\n";
mkdir '/tmp/a'; mkdir '/tmp/b';
my ($ns, $why) = user_namespace("0 805306368 65536\n", "0 805306368 65536\n", 805306368);
$why = idmapped_bind('/tmp', '/tmp/b', fileno($ns), 0) unless defined $why;
die "$why\n" if defined $why;
my @found = stat '/tmp/b/a' or die "stat: $!\n";
die "ids are not mapped\n" if $found[4] != 805306368;
`;

async function idmap(signal: AbortSignal | undefined): Promise<JailCheck> {
  const name = 'idmapped mounts';
  const args = ['--mount', '--propagation', 'private', '--', 'perl', '-e', IDMAP_TEST];
  const why = await reasonOfFailure('unshare', args, signal);
  if (why === undefined) return { name, ok: true };
  return { name, ok: false, why, mend: 'Use Linux 6.3 or later, with the right to mount.' };
}

async function controlGroups(): Promise<JailCheck> {
  const name = 'control groups';
  const missing = await missingControllers();
  if (missing.length === 0) return { name, ok: true };
  const why = `Nothing can be limited by the control group${missing.length === 1 ? '' : 's'} ${missing.join(', ')}.`;
  return { name, ok: false, why, mend: CONTROL_GROUPS_HINT };
}

async function reasonOfFailure(command: string, args: readonly string[], signal: AbortSignal | undefined) {
  try {
    await run(command, args, { timeoutMs: 10_000, signal });
    return undefined;
  } catch (error) {
    signal?.throwIfAborted();
    if (!isDecantError(error)) throw error;
    const lines = typeof error.details['lastLines'] === 'string' ? error.details['lastLines'] : error.message;
    return lines.split('\n')[0] ?? error.message;
  }
}
