import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { createInterface } from 'node:readline';
import type { Duplex, Readable, Writable } from 'node:stream';

import { DecantError, quote, Scope } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';

import { guestArguments } from './bubblewrap.ts';
import { INIT_PROGRAM, ROOT_FOR_GUEST } from './init-program.ts';
import { requireRunner } from './probe.ts';
import { seccompFilter } from './seccomp.ts';
import { resolveUser, type ImageUser } from './user.ts';

/** Streams the guest's standard streams are connected to; what is left out is empty or thrown away. */
export interface GuestStreams {
  readonly stdin?: Readable | undefined;
  readonly stdout?: Writable | undefined;
  readonly stderr?: Writable | undefined;
}

export interface RunImageOptions {
  /** An NBD export on a Unix socket (`exportName` defaults to the empty name), or an image file. */
  readonly disk: { readonly nbdSocket: string; readonly exportName?: string | undefined } | { readonly file: string };
  readonly filesystem: 'erofs' | 'ext4';
  /** Program and arguments; the program is looked for in the PATH of `env` inside the image. At least one. */
  readonly argv: readonly string[];
  /** The guest's environment. HOME and PATH get values when they are not in it. */
  readonly env: Readonly<Record<string, string>>;
  /** `User` of the OCI image config: name or number, with an optional group; undefined or empty is root. */
  readonly user?: string | undefined;
  /** Made when the image does not have it; default `/`. */
  readonly workingDir?: string | undefined;
  /** Default `decant`. */
  readonly hostname?: string | undefined;
  /** Most bytes the guest can write; they live in memory and are thrown away at the end. */
  readonly diskBytes: number;
  readonly stdio: 'inherit' | GuestStreams;
  /** Where the run has its (empty) folder, and what killed runs left of theirs is removed. */
  readonly stateDirectory: string;
  readonly signal?: AbortSignal | undefined;
}

export interface RunImageResult {
  /** The command's exit code; 128 + n after signal n; 127 when there is no such command, 126 when it cannot be executed. */
  readonly exitCode: number;
  /** False when the image has no such command or it cannot be executed, so that nothing ran. */
  readonly ran: boolean;
}

/** Host ids of a run begin at a random multiple of 65,536 in this range, far above those of people and services. */
const FIRST_HOST_ID = 0x3000_0000;
const HOST_ID_SLOTS = 4096;
const IDS_PER_RUN = 65_536;
const MOST_PROCESSES = 4096;
const SETUP_TIMEOUT_MS = 60_000;
const KILL_AFTER_MS = 2000;
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Runs a command in an image: lazily mounted read-only, below a throw-away write layer, without network, with
 * process, mount, IPC, UTS and user namespaces of its own. No id in the image, root included, is an id that the
 * host uses. Everything ends when this process ends, however it ends.
 * @throws JAIL_UNAVAILABLE when this machine or user cannot do it, JAIL_FAILED when the sandbox cannot be set up.
 */
export async function runImage(options: RunImageOptions): Promise<RunImageResult> {
  const { signal } = options;
  signal?.throwIfAborted();
  checkOptions(options);
  await requireRunner(options.filesystem, 'nbdSocket' in options.disk);
  const filter = seccompFilter();
  await using scope = new Scope();
  const folder = scope.use(await openScratchDirectory(options.stateDirectory));
  const child = launch(options, folder.path);
  return await converse(child, options, filter);
}

function checkOptions({ argv, env, diskBytes, workingDir, hostname }: RunImageOptions): void {
  if (argv[0] === undefined || argv[0] === '') {
    throw new DecantError('USAGE', 'There is no command to run.', {
      hint: 'The image sets none: write one after --.',
    });
  }
  const texts = [...argv, workingDir ?? '', hostname ?? '', ...Object.keys(env), ...Object.values(env)];
  if (texts.some((text) => text.includes('\0'))) {
    throw new DecantError('USAGE', 'A command, environment or working directory cannot hold a NUL character.');
  }
  if (Object.keys(env).some((name) => name === '' || name.includes('='))) {
    throw new DecantError('USAGE', 'The name of an environment variable cannot be empty or hold an equals sign.');
  }
  if (Object.keys(env).length > 2000) throw new DecantError('LIMIT_EXCEEDED', 'More than 2,000 environment variables.');
  if (!Number.isSafeInteger(diskBytes) || diskBytes < 65_536) {
    throw new DecantError('USAGE', 'The write layer needs at least 65,536 bytes.');
  }
  if (workingDir !== undefined && workingDir !== '' && !workingDir.startsWith('/')) {
    throw new DecantError('USAGE', `The working directory ${quote(workingDir)} is not an absolute path.`);
  }
}

/**
 * setpriv: the kernel kills `unshare` when we end. unshare: private mounts, and a process namespace whose first
 * process is killed with unshare. The set-up program also ends when its descriptor 3 closes, which covers the
 * moment before setpriv has run and is how a run is stopped.
 */
function launch(options: RunImageOptions, folder: string): ChildProcess {
  const { disk } = options;
  const base = FIRST_HOST_ID + randomInt(HOST_ID_SLOTS) * IDS_PER_RUN;
  const facts = [
    `dir=${folder}`,
    `base=${base}`,
    `count=${IDS_PER_RUN}`,
    `fs=${options.filesystem}`,
    `disk=${options.diskBytes}`,
    `nproc=${MOST_PROCESSES}`,
    'nbdSocket' in disk
      ? `nbd=nbd+unix:///${encodeURIComponent(disk.exportName ?? '')}?socket=${encodeURIComponent(disk.nbdSocket)}`
      : `file=${disk.file}`,
  ];
  const guest: StdioOptions =
    options.stdio === 'inherit' ? ['inherit', 'inherit', 'inherit'] : ['pipe', 'pipe', 'pipe'];
  const unshare = ['unshare', '--mount', '--propagation', 'private', '--pid', '--fork', '--mount-proc'];
  return spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', '--', ...unshare, '--kill-child=KILL', '--', 'perl', '-e', INIT_PROGRAM, '--', ...facts],
    {
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
      stdio: [...guest, 'pipe', 'pipe'],
    },
  );
}

async function converse(child: ChildProcess, options: RunImageOptions, filter: Uint8Array): Promise<RunImageResult> {
  const { signal } = options;
  const control = child.stdio[3] as Duplex;
  const reports = child.stdio[4] as Duplex;
  control.on('error', () => undefined);
  control.resume();
  reports.on('error', () => undefined);
  // 'close' also waits for the guest's pipes, so that all its output has arrived.
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const spawnFailed = new Promise<never>((_, reject) => child.once('error', reject));
  spawnFailed.catch(() => undefined);
  let killTimer: NodeJS.Timeout | undefined;
  const stop = () => {
    control.destroy();
    killTimer ??= setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS);
  };
  let timedOut = false;
  const setupTimer = setTimeout(() => {
    timedOut = true;
    stop();
  }, SETUP_TIMEOUT_MS);
  signal?.addEventListener('abort', stop, { once: true });
  if (signal?.aborted === true) stop();
  if (options.stdio !== 'inherit') connect(child, options.stdio);
  const outcome: { exitCode?: number; ran?: boolean; error?: unknown } = {};
  try {
    const listening = (async () => {
      for await (const line of createInterface({ input: reports })) {
        const [verb, ...fields] = line.split(' ');
        if (verb === 'ready') control.write('go\n');
        else if (verb === 'started') clearTimeout(setupTimer);
        else if (verb === 'exit' || verb === 'missing') {
          outcome.exitCode = Number(fields[0]);
          outcome.ran = verb === 'exit';
        } else if (verb === 'fail') outcome.error = setupError(unhex(fields[0]), unhex(fields[1]));
        else if (verb === 'files') {
          try {
            const user = resolveUser(options.user, unhex(fields[0]), unhex(fields[1]));
            control.write(runLine(options, user, filter));
          } catch (error) {
            outcome.error = error;
            stop();
          }
        }
      }
    })();
    await Promise.race([Promise.all([ended, listening]), spawnFailed]);
  } finally {
    clearTimeout(setupTimer);
    clearTimeout(killTimer);
    signal?.removeEventListener('abort', stop);
  }
  signal?.throwIfAborted();
  if (timedOut) throw new DecantError('TIMEOUT', `The sandbox was not ready within ${SETUP_TIMEOUT_MS} ms.`);
  if (outcome.error !== undefined) throw outcome.error;
  if (outcome.exitCode === undefined) throw new DecantError('JAIL_FAILED', 'The sandbox ended without a result.');
  return { exitCode: outcome.exitCode, ran: outcome.ran === true };
}

function connect(child: ChildProcess, streams: GuestStreams): void {
  const { stdin, stdout, stderr } = child;
  // A guest that does not read its input is judged by its exit code.
  stdin?.on('error', () => undefined);
  if (streams.stdin === undefined) stdin?.end();
  else streams.stdin.pipe(stdin!);
  child.once('exit', () => streams.stdin?.unpipe());
  for (const [from, to] of [
    [stdout, streams.stdout],
    [stderr, streams.stderr],
  ] as const) {
    if (to === undefined) from?.resume();
    else from?.pipe(to, { end: false });
  }
}

function runLine(options: RunImageOptions, user: ImageUser, filter: Uint8Array): string {
  const env = { PATH: DEFAULT_PATH, HOME: user.home, ...options.env };
  const workingDir = options.workingDir === undefined || options.workingDir === '' ? '/' : options.workingDir;
  const args = guestArguments({
    root: ROOT_FOR_GUEST,
    user,
    env,
    workingDir,
    hostname: options.hostname ?? 'decant',
    terminal: options.stdio === 'inherit' && process.stdin.isTTY,
  });
  const fields = [
    'run',
    user.uid,
    user.gid,
    user.groups.length === 0 ? '-' : user.groups.join(','),
    hex(options.argv[0]!),
    hex(env.PATH),
    hex(workingDir),
    hex(args.map((arg) => `${arg}\0`).join('')),
    Buffer.from(filter).toString('hex'),
    ...options.argv.map(hex),
  ];
  return `${fields.join(' ')}\n`;
}

function setupError(step: string, reason: string): DecantError {
  return new DecantError('JAIL_FAILED', `The sandbox could not be set up (${step}): ${reason.trim().split('\n')[0]}.`, {
    hint: 'decant doctor shows what this machine can do.',
    details: { step, reason },
  });
}

function hex(text: string): string {
  return text === '' ? '-' : Buffer.from(text, 'utf8').toString('hex');
}

function unhex(text: string | undefined): string {
  return text === undefined || text === '-' ? '' : Buffer.from(text, 'hex').toString('utf8');
}
