import { randomInt } from 'node:crypto';
import { lstat, readlink } from 'node:fs/promises';
import { isAbsolute } from 'node:path';

import { DecantError, errnoOf, isDecantError, MIB, quote } from '@decant/core';
import { findProgram, run, type RunResult } from '@decant/core/node';

import { CONFINE_PREFIX, CONFINE_PROGRAM, PATHS_FOR_TOOL, TOOL_SECCOMP_FD } from './confine-program.ts';
import { seccompFilter } from './seccomp.ts';

/** Programs that run before the tool does, by the name they put before what they say. */
const SET_UP_PROGRAMS: readonly string[] = ['bwrap', 'unshare', 'setpriv', 'prlimit'];

export interface ConfinedToolOptions {
  /** Absolute paths the tool may read; they have the same names inside. A link is followed now, not inside. */
  readonly readOnly: readonly string[];
  /** Absolute paths it may also write. */
  readonly readWrite?: readonly string[] | undefined;
  /** Bytes for standard input; default none. */
  readonly input?: string | Uint8Array | AsyncIterable<Uint8Array> | undefined;
  readonly limits: {
    /** Milliseconds until the tool is killed. */
    readonly timeoutMs: number;
    /** Most bytes of address space of each process. */
    readonly memoryBytes: number;
    /** Most bytes of any file it writes. */
    readonly fileBytes: number;
  };
  readonly signal?: AbortSignal | undefined;
}

/** Host ids for tools, apart from those of sandboxes (see open-sandbox.ts). */
const FIRST_TOOL_ID = 0x2f00_0000;
const TOOL_IDS = 0x0010_0000;
const MOST_PATHS = 64;
const TMP_BYTES = 16 * MIB;
/** Folders of the system that programs need; read-only. */
const SYSTEM_FOLDERS = ['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32'];
const SYSTEM_FILES = ['/etc/ld.so.cache', '/etc/ld.so.conf', '/etc/ld.so.conf.d', '/etc/alternatives'];

/**
 * Runs a program of this machine on untrusted input: all namespaces its own, no network, no host file but the
 * system's programs and the given paths, no capability, a system call filter, limits. Started as root, it runs as a
 * host id that owns nothing, and reads the given paths as if it owned them. It is killed on abort, at the time
 * limit and when this process ends.
 * @returns also for an exit code that is not 0: what it means is the caller's to say. 128 + n after signal n.
 * @throws JAIL_UNAVAILABLE without bubblewrap, JAIL_FAILED when the sandbox cannot be set up, TIMEOUT.
 */
export async function runConfinedTool(
  command: string,
  args: readonly string[],
  options: ConfinedToolOptions,
): Promise<RunResult> {
  const { limits, signal, input } = options;
  signal?.throwIfAborted();
  const paths = [
    ...options.readOnly.map((path) => ({ path, bind: '--ro-bind' })),
    ...(options.readWrite ?? []).map((path) => ({ path, bind: '--bind' })),
  ];
  checkPaths(paths.map(({ path }) => path));
  const program = await requirePrograms(command);
  const isRoot = process.getuid?.() === 0;
  const id = isRoot ? FIRST_TOOL_ID + randomInt(TOOL_IDS) : 0;
  const binds = paths.flatMap(({ path, bind }, i) => [bind, isRoot ? `${PATHS_FOR_TOOL}/${i}` : path, path]);
  const cpuSeconds = Math.ceil(limits.timeoutMs / 1000) + 1;
  const start = [
    'prlimit',
    `--as=${limits.memoryBytes}`,
    `--fsize=${limits.fileBytes}`,
    `--cpu=${cpuSeconds}`,
    '--core=0',
    '--nofile=256',
    ...(isRoot ? ['--nproc=64', '--', 'setpriv', '--reuid', `${id}`, '--regid', `${id}`, '--clear-groups'] : []),
    '--',
    'bwrap',
    ...words('--unshare-user --unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try'),
    ...words('--uid 65534 --gid 65534 --hostname decant --cap-drop ALL --die-with-parent --new-session --clearenv'),
    ...words('--setenv PATH /usr/sbin:/usr/bin:/sbin:/bin --setenv LC_ALL C'),
    ...(await systemBinds()),
    ...words(`--proc /proc --dev /dev --size ${TMP_BYTES} --tmpfs /tmp`),
    ...binds,
    ...words(`--remount-ro / --chdir / --seccomp ${TOOL_SECCOMP_FD} --`),
    program,
    ...args,
  ];
  const facts = [`${id}`, Buffer.from(seccompFilter()).toString('hex'), `${paths.length}`];
  const namespaces = isRoot
    ? words('unshare --mount --propagation private --pid --fork --mount-proc --kill-child=KILL --')
    : [];
  const result = await run(
    'setpriv',
    [
      ...words('--pdeathsig KILL --'),
      ...namespaces,
      ...['perl', '-e', CONFINE_PROGRAM, '--'].concat(facts),
      ...paths.map(({ path }) => path),
      ...start,
    ],
    {
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
      okCodes: Array.from({ length: 256 }, (_, code) => code),
      timeoutMs: limits.timeoutMs,
      killAfterMs: 100,
      signal,
      ...(input === undefined ? {} : { input }),
    },
  ).catch((error: unknown) => {
    if (!isDecantError(error, 'TIMEOUT')) throw error;
    throw new DecantError('TIMEOUT', `${command} did not end within ${limits.timeoutMs} ms.`, {
      details: error.details,
    });
  });
  const complaint = setUpComplaint(result.stderr.toString('utf8'));
  if (result.exitCode !== 0 && complaint !== undefined) {
    throw new DecantError('JAIL_FAILED', `The sandbox for ${command} could not be set up: ${complaint}`, {
      hint: 'decant doctor shows what this machine can do.',
      details: { command, exitCode: result.exitCode },
    });
  }
  return result;
}

/** What a program that sets the sandbox up said before the tool could start; undefined when the tool did. */
function setUpComplaint(stderr: string): string | undefined {
  const lines = stderr.split('\n').filter((line) => line !== '');
  const failed =
    lines.some((line) => line.startsWith(CONFINE_PREFIX)) ||
    SET_UP_PROGRAMS.some((name) => lines[0]?.startsWith(`${name}: `) === true);
  return failed ? lines.slice(0, 4).join('; ') : undefined;
}

function words(text: string): string[] {
  return text.split(' ');
}

function checkPaths(paths: readonly string[]): void {
  if (paths.length > MOST_PATHS) throw new DecantError('LIMIT_EXCEEDED', `More than ${MOST_PATHS} paths for one tool.`);
  for (const path of paths) {
    if (!isAbsolute(path) || path.includes('\0') || path === '/') {
      throw new DecantError('USAGE', `Not a path that can be given to a confined tool: ${quote(path)}.`);
    }
  }
}

async function requirePrograms(command: string): Promise<string> {
  for (const [name, debian] of [
    ['bwrap', 'bubblewrap'],
    ['perl', 'perl-base'],
    ['setpriv', 'util-linux'],
    ['prlimit', 'util-linux'],
  ] as const) {
    if (process.platform === 'linux' && (await findProgram(name)) !== undefined) continue;
    throw new DecantError('JAIL_UNAVAILABLE', `${command} cannot be confined here: ${name} is not installed.`, {
      hint: `Install ${name} on a Linux machine (Debian package: ${debian}).`,
    });
  }
  const program = isAbsolute(command) ? command : await findProgram(command);
  if (program !== undefined) return program;
  throw new DecantError('PROCESS_MISSING', `The program ${command} is not installed.`);
}

/** Where a system keeps /bin and the like as links into /usr, the same links are made inside. */
async function systemBinds(): Promise<string[]> {
  const args: string[] = [];
  for (const folder of SYSTEM_FOLDERS) {
    try {
      if ((await lstat(folder)).isSymbolicLink()) args.push('--symlink', await readlink(folder), folder);
      else args.push('--ro-bind', folder, folder);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }
  for (const file of SYSTEM_FILES) args.push('--ro-bind-try', file, file);
  return args;
}
