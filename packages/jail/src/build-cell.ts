import { spawn, type ChildProcess } from 'node:child_process';
import { access, statfs } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

import { DecantError } from '@decant/core';
import { findProgram, spooled } from '@decant/core/node';

import { CELL_FDS, CELL_PATHS, CELL_PROGRAM } from './cell-program.ts';
import { openControlGroup, type ControlGroup, type GroupLimits } from './cgroup.ts';
import { seccompFilter } from './seccomp.ts';

/** What ended a cell, besides its command. */
export type CellLimit = 'memory' | 'disk' | 'processes' | 'cpu-time' | 'output';

export interface BuildCellOptions {
  /** Made by {@link createVolume} for the id 0 of the cell; `/build` inside. */
  readonly volumeFile: string;
  /** Host id of the cell's id 0; 65,536 ids from here on belong to the cell alone. */
  readonly firstHostId: number;
  /** A directory that everybody may read, `/in` inside; it is read-only there. */
  readonly inbox: string;
  /** A private empty directory for the time of the run. */
  readonly mountPoint: string;
  /** Paths inside, by the path below the inbox they are bound from. */
  readonly files?: Readonly<Record<string, string>> | undefined;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly limits: GroupLimits & {
    /** Most milliseconds of processor time. */
    readonly cpuMs: number;
    /** Most bytes written to descriptor 3. */
    readonly outputBytes: number;
  };
  /** Takes what is written to descriptor 3. */
  readonly output: (piece: Uint8Array) => Promise<void>;
  /** A line of standard output or standard error, without its end; long ones come in pieces. */
  readonly onLine: (line: string, stream: 'stdout' | 'stderr') => void;
  readonly signal?: AbortSignal | undefined;
}

export interface BuildCellResult {
  /** 128 + n after signal n. */
  readonly exitCode: number;
  /** The limit that was reached, if one was. */
  readonly limit: CellLimit | undefined;
}

const IDS = 65_536;
/** The machine's perl, which every cell has. */
const CELL_PERL = '/usr/bin/perl';
/** Most bytes of output that wait to be read. */
const HELD_BYTES = 32 * 1024 * 1024;
const POLL_MS = 200;
const KILL_AFTER_MS = 2000;
const LONGEST_LINE = 64 * 1024;
/** A volume with fewer free bytes than this, or than a fiftieth, has been filled. */
const DISK_RESERVE_BYTES = 4 * 1024 * 1024;
const PROGRAMS: readonly (readonly [name: string, debian: string])[] = [
  ['bwrap', 'bubblewrap'],
  ['perl', 'perl-base'],
  ['setpriv', 'util-linux'],
  ['unshare', 'util-linux'],
  ['nsenter', 'util-linux'],
  ['prlimit', 'util-linux'],
  ['mkfs.ext4', 'e2fsprogs'],
];

/** @throws JAIL_UNAVAILABLE when this machine or user cannot run cells, with what is missing. */
export async function requireBuildCells(): Promise<void> {
  const refuse = (why: string, hint: string) => {
    throw new DecantError('JAIL_UNAVAILABLE', `This machine cannot confine a build: ${why}`, { hint });
  };
  if (process.platform !== 'linux') refuse(`it runs ${process.platform}, not Linux.`, 'Use a Linux machine.');
  if (process.getuid?.() !== 0) refuse('that needs root.', 'Run the service as root.');
  for (const [name, debian] of PROGRAMS) {
    if ((await findProgram(name)) === undefined) refuse(`${name} is not installed.`, `Install ${debian}.`);
  }
  await access('/dev/loop-control').catch(() => refuse('there are no loop devices.', 'Load the kernel module loop.'));
  await using group = await openControlGroup({ memoryBytes: 64 * 1024 * 1024, processes: 64, cpus: 1 });
  await group.usage();
}

/**
 * Runs a program of this machine as root of a cell that holds untrusted work, an image builder for example: user,
 * process, mount, network (nothing but a loopback), IPC and UTS namespaces of its own, host ids that nobody
 * else has, the machine's programs read-only and besides only the volume and the inbox, a system call filter that lets
 * mounts and namespaces pass but not the rest of what containers cannot do, control groups. Everything ends with this
 * process, however it ends.
 * @throws JAIL_UNAVAILABLE, JAIL_FAILED when the cell cannot be set up.
 */
export async function runBuildCell(options: BuildCellOptions): Promise<BuildCellResult> {
  const { signal, limits } = options;
  signal?.throwIfAborted();
  await using group = await openControlGroup(limits);
  const child = launch(options, group);
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  let limit: CellLimit | undefined;
  let killTimer: NodeJS.Timeout | undefined;
  const stop = (why?: CellLimit) => {
    limit ??= why;
    child.stdin?.destroy();
    killTimer ??= setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS);
  };
  const onAbort = () => stop();
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted === true) stop();
  child.stdin?.on('error', () => undefined);
  const [, stdout, stderr, output, reports] = child.stdio as [unknown, Readable, Readable, Readable, Readable];
  eachLine(stdout, (line) => options.onLine(line, 'stdout'));
  eachLine(stderr, (line) => options.onLine(line, 'stderr'));
  const copied = copy(output, options.output, limits.outputBytes, () => stop('output')).catch((error: unknown) => {
    stop();
    output.resume();
    throw error;
  });
  const report = readReport(reports);
  let isDiskFull = false;
  const poll = setInterval(() => {
    void check(child, group).then(
      ({ cpuMs, diskFull }) => {
        isDiskFull ||= diskFull;
        if (cpuMs > limits.cpuMs) stop('cpu-time');
      },
      // It is ending: its mounts are gone before it is.
      () => undefined,
    );
  }, POLL_MS);
  try {
    const [, outcome] = await Promise.allSettled([ended, copied]);
    if (outcome.status === 'rejected') throw outcome.reason;
  } finally {
    clearInterval(poll);
    clearTimeout(killTimer);
    signal?.removeEventListener('abort', onAbort);
  }
  signal?.throwIfAborted();
  const { exitCode, failure, diskFull } = await report;
  if (failure !== undefined) {
    throw new DecantError('JAIL_FAILED', `The cell could not be set up: ${failure}`, { details: { reason: failure } });
  }
  if (limit === undefined && exitCode !== 0) {
    const { oomKills, refusedProcesses } = await group.usage();
    if (oomKills > 0) limit = 'memory';
    else if (isDiskFull || diskFull === true) limit = 'disk';
    else if (refusedProcesses > 0) limit = 'processes';
  }
  if (exitCode === undefined && limit === undefined) {
    throw new DecantError('JAIL_FAILED', 'The cell ended without a result.');
  }
  return { exitCode: exitCode ?? 137, limit };
}

function launch(options: BuildCellOptions, group: ControlGroup): ChildProcess {
  const { firstHostId } = options;
  const id = String(firstHostId);
  const facts = [
    ...[options.volumeFile, options.mountPoint, options.inbox, id, String(IDS)],
    Buffer.from(seccompFilter(process.arch, { nesting: true })).toString('hex'),
    group.joinFiles.join(':'),
  ];
  const enter = ['prlimit', '--core=0:0', '--nofile=20000:20000', '--', 'setpriv', '--reuid', id, '--regid', id];
  const bwrap = ['--clear-groups', '--', 'bwrap', ...cellArguments(options)];
  const unshare = ['unshare', '--mount', '--propagation', 'private', '--pid', '--fork', '--mount-proc'];
  return spawn(
    'setpriv',
    [
      '--pdeathsig',
      'KILL',
      '--',
      ...unshare,
      '--kill-child=KILL',
      '--',
      'perl',
      '-e',
      CELL_PROGRAM,
      '--',
      ...facts,
    ].concat(enter, bwrap),
    {
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
      stdio: ['pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
    },
  );
}

function cellArguments({ files = {}, env, argv, limits }: BuildCellOptions): string[] {
  const args = ['--userns', `${CELL_FDS.userNamespace}`, '--seccomp', `${CELL_FDS.seccomp}`];
  args.push('--unshare-net', '--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-cgroup-try');
  args.push('--uid', '0', '--gid', '0', '--hostname', 'build', '--die-with-parent', '--new-session');
  args.push('--ro-bind', '/usr', '/usr', '--tmpfs', '/usr/local');
  for (const name of ['bin', 'sbin', 'lib', 'lib32', 'lib64', 'libx32'])
    args.push('--symlink', `usr/${name}`, `/${name}`);
  for (const path of ['/etc/alternatives', '/etc/ld.so.cache', '/sys/devices/system/cpu']) {
    args.push('--ro-bind-try', path, path);
  }
  args.push('--proc', '/proc', '--dev', '/dev', '--tmpfs', '/tmp', '--tmpfs', '/run', '--tmpfs', '/var');
  args.push('--bind', CELL_PATHS.volume, '/build', '--ro-bind', CELL_PATHS.inbox, '/in');
  for (const [path, from] of Object.entries(files)) args.push('--ro-bind', `${CELL_PATHS.inbox}/${from}`, path);
  args.push('--cap-add', 'ALL', '--clearenv');
  for (const [name, value] of Object.entries(env)) args.push('--setenv', name, value);
  // What waits to be read counts as memory of the cell.
  const held = Math.min(HELD_BYTES, Math.floor(limits.memoryBytes / 8));
  args.push('--chdir', '/build', '--', ...spooled(CELL_PERL, argv, held));
  return args;
}

async function check(child: ChildProcess, group: ControlGroup): Promise<{ cpuMs: number; diskFull: boolean }> {
  const { cpuMs } = await group.usage();
  // The process shares the mounts of the cell's set-up program.
  const { bavail, blocks, bsize, ffree } = await statfs(`/proc/${child.pid}/root${CELL_PATHS.volume}`).catch(() => ({
    bavail: 1,
    blocks: 0,
    bsize: DISK_RESERVE_BYTES,
    ffree: 1,
  }));
  return { cpuMs, diskFull: isFull(blocks * bsize, bavail * bsize, ffree) };
}

function isFull(sizeBytes: number, freeBytes: number, freeInodes: number): boolean {
  return freeBytes < Math.min(DISK_RESERVE_BYTES, sizeBytes / 50) || freeInodes === 0;
}

/** Lines as they come; a line beyond 64 KiB is given in pieces, so that a line without an end needs no memory. */
function eachLine(stream: Readable, onLine: (line: string) => void): void {
  let partial = '';
  stream.setEncoding('utf8');
  stream.on('data', (text: string) => {
    const pieces = (partial + text).split(/\r?\n/);
    partial = pieces.pop() ?? '';
    for (const piece of pieces) onLine(piece);
    while (partial.length > LONGEST_LINE) {
      onLine(partial.slice(0, LONGEST_LINE));
      partial = partial.slice(LONGEST_LINE);
    }
  });
  stream.on('end', () => {
    if (partial !== '') onLine(partial);
  });
  stream.on('error', () => undefined);
}

/** Hands on what comes, up to the limit; what comes then is dropped, so that the writer does not wait. */
async function copy(
  from: Readable,
  to: (piece: Uint8Array) => Promise<void>,
  limit: number,
  onLimit: () => void,
): Promise<void> {
  let bytes = 0;
  for await (const piece of from as AsyncIterable<Buffer>) {
    const before = bytes;
    bytes += piece.length;
    if (bytes <= limit) await to(piece);
    else if (before <= limit) onLimit();
  }
}

async function readReport(reports: Readable): Promise<{ exitCode?: number; failure?: string; diskFull?: boolean }> {
  for await (const line of createInterface({ input: reports })) {
    const [verb, value = '', size, free, inodes] = line.split(' ');
    if (verb === 'exit') {
      const diskFull = inodes !== undefined && isFull(Number(size), Number(free), Number(inodes));
      return { exitCode: Number(value), diskFull };
    }
    if (verb === 'fail') return { failure: Buffer.from(value, 'hex').toString('utf8') };
  }
  return {};
}
